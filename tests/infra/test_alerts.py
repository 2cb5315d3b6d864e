"""Alerting rules, evaluated by Prometheus itself: on a healthy system none fires, on a broken one the rule for what broke does.

The series of the healthy system are those that the services really expose when they start, each with the metrics of its own.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.infra.files import NAMES, ROOT, alert_rules

from tidemill.runtime import metrics
from tidemill.runtime.exits import REASONS

PROMTOOL = shutil.which("promtool")
HOURS = 4
MINUTES = HOURS * 60
ALL_ALERTS = [rule["alert"] for rule in alert_rules()]
Series = dict[str, str]
"""What a series is (its name and labels as PromQL writes them) -> its value every minute, in promtool's notation."""

LAG = 'tidemill_features_lag_records{job="tidemill",service="features",view="v",partition="0"}'
TABLE_LAG = 'tidemill_offline_lag_records{job="tidemill",service="offline",table="t",partition="0"}'
LETTERS = 'tidemill_ingestion_dead_letters_total{job="tidemill",service="ingestion",topic="t",reason="schema"}'
LATE = 'tidemill_features_events_late_total{job="tidemill",service="features",view="v"}'
POISON = LATE.replace("_late_", "_poison_")
FRESH = 'tidemill_features_freshness_seconds_bucket{job="tidemill",service="features",view="v",le="%s"}'
ANSWERS = 'tidemill_inference_responses_total{job="tidemill",service="inference",model="m",status="%s"}'
DRIFT = 'tidemill_drift_alerts_total{job="tidemill",service="drift",model="m",kind="input"}'
DIFFERS = 'tidemill_audit_differing_values{job="tidemill",service="audit",view="v",partition="0"}'
ROUNDS = 'tidemill_audit_rounds_total{job="tidemill",service="audit"}'
EXITS = 'tidemill_process_exits_total{job="tidemill",service="features",reason="%s"}'
CHECK = 'tidemill_dependency_up{job="tidemill",service="offline",dependency="kafka"}'
UP = 'up{job="tidemill",service="%s"}'

BROKEN: Mapping[str, Series] = {
    "ServiceDown": {UP % "drift": f"1x30 0x{MINUTES}"},
    "DependencyDown": {CHECK: f"1x30 0x{MINUTES}"},
    "ProcessEnded": {EXITS % "killed": f"0x{MINUTES - 5} 1x30"},
    "FeaturesBehind": {LAG: f"0+1000x{MINUTES}"},
    "OfflineStoreBehind": {TABLE_LAG: f"0+1000x{MINUTES}"},
    "DeadLetters": {LETTERS: f"0x{MINUTES - 5} 1x30"},
    "EventsRefusedByViews": {POISON: f"0x{MINUTES - 5} 2x30", LATE: f"0x{MINUTES}"},
    "StaleFeatures": {FRESH % "5": f"0x{MINUTES}", FRESH % "10": f"0+50x{MINUTES}", FRESH % "+Inf": f"0+50x{MINUTES}"},
    "PredictionsFail": {ANSWERS % "503": f"0+1x{MINUTES}"},
    "ModelDrift": {DRIFT: f"0x{MINUTES - 30} 1x60"},
    "RetrainingFails": {
        'tidemill_retraining_steps_total{job="tidemill",service="retraining",model="m",step="failed"}': f"0x{MINUTES - 30} 1x60"
    },
    "ArchiveDiffers": {
        'tidemill_audit_differing_archived_events{job="tidemill",service="audit",event="e",partition="0"}': f"0x{MINUTES - 5} 3x30"
    },
    "StoreDiffers": {DIFFERS: f"0x{MINUTES - 5} 3x30"},
    "VerifyDiffers": {DIFFERS.replace("_values", "_verified_values"): f"0x{MINUTES - 5} 3x30"},
    "AuditStalled": {ROUNDS: f"0+1x90 91x{MINUTES}"},
}


@pytest.fixture
def started() -> Series:
    """Every series that each service exposes when it starts, never changing."""
    series: Series = {}
    for service in NAMES:
        metrics.begin(service)
        series[UP % service] = f"1x{MINUTES}"
        for family in text_string_to_metric_families(metrics.exposition()[1].decode()):
            for sample in family.samples:
                if sample.name.startswith("tidemill_") and not set(sample.labels) - {"le"}:
                    labels = "".join(f',{name}="{value}"' for name, value in sample.labels.items())
                    series[f'{sample.name}{{job="tidemill",service="{service}"{labels}}}'] = f"0x{MINUTES}"
    metrics.begin(None)
    return series


@pytest.fixture
def healthy(started: Series) -> Series:
    """A system at work: everything answers, follows and is audited, and what counts trouble stays at 0."""
    checks = {CHECK.replace("offline", service): f"1x{MINUTES}" for service in NAMES}
    ends = {EXITS.replace("features", service) % reason: f"0x{MINUTES}" for service in NAMES for reason in REASONS}
    traffic = {LAG: f"0x{MINUTES}", TABLE_LAG: f"500x{MINUTES}", ANSWERS % "200": f"0+60x{MINUTES}", ANSWERS % "422": f"0+1x{MINUTES}"}
    trouble = dict.fromkeys((LETTERS, LATE, POISON, DRIFT, DIFFERS), f"0x{MINUTES}")
    fresh = {FRESH % le: f"0+60x{MINUTES}" for le in ("5", "10", "+Inf")}
    return started | checks | ends | traffic | trouble | fresh | {ROUNDS: f"0+1x{MINUTES}"}


def firing(folder: Path, series: Series, expected: Iterable[str], at: str = f"{HOURS}h") -> None:
    """Asserts that exactly these alerts fire after some hours of these series."""
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) * 0 + 1',
                "eval_time": at,
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected],
            }
        ],
    }
    rules = str(ROOT / "infra" / "prometheus" / "alerts.yml")
    (folder / "test.yml").write_text(yaml.safe_dump({"rule_files": [rules], "evaluation_interval": "1m", "tests": [test]}, width=10_000))
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: package prometheus); without it no rule can be evaluated"
)


@needs_promtool
@pytest.mark.parametrize("at", ["5m", "90m", "3h", f"{HOURS}h"])
def test_nothing_fires_on_a_healthy_system(tmp_path: Path, healthy: Series, at: str) -> None:
    """Hours of an ordinary day: no alert, early or late."""
    firing(tmp_path, healthy, [], at)


@needs_promtool
@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_what_breaks_fires_its_own_alert_alone(tmp_path: Path, healthy: Series, alert: str) -> None:
    """One fault in the healthy system fires the rule that is about it, and no other."""
    firing(tmp_path, healthy | BROKEN[alert], [alert])


@needs_promtool
def test_an_audit_that_never_ends_a_round(tmp_path: Path, healthy: Series) -> None:
    """A counter that stays at 0 from the start fires once, for the audit, not for services that do not count rounds."""
    stalled = healthy | {ROUNDS: f"0x{MINUTES}"}
    firing(tmp_path, stalled, [], "30m")
    firing(tmp_path, stalled, ["AuditStalled"], "3h")


def test_every_rule_has_a_fault() -> None:
    """A new rule needs a broken system that fires it."""
    assert sorted(BROKEN) == sorted(ALL_ALERTS)


def test_only_the_audit_shows_its_rounds(started: Series) -> None:
    """No series exists at 0 in a service that will never count it: without promtool too, the alert cannot fire for seven others."""
    assert [name for name in started if name.startswith("tidemill_audit_rounds_total")] == [ROUNDS]
    assert {name.split('service="')[1].split('"')[0] for name in started if "tidemill_ingestion" in name} == {"ingestion"}
