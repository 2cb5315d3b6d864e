"""Prometheus and Grafana: every service is scraped, every metric named exists, every rule and panel can be evaluated."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.infra.files import NAMES, ROOT, alert_rules, board, container, expressions, mounts, prometheus, provisioned

from tidemill.runtime.metrics import Metric, catalogue

SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERIES: dict[str, Metric] = {metric.name + suffix: metric for metric in catalogue() for suffix in SUFFIXES[metric.kind]}
OF_SCRAPING = {"job", "instance", "service"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; the structural tests of rules ran instead")


def labels_of(expression: str) -> set[str]:
    """The labels of the series in an expression: those of its metrics, and what scraping adds."""
    metrics = [SERIES[name] for name in re.findall(r"\btidemill_\w+", expression)]
    return OF_SCRAPING.union(*(metric.labels for metric in metrics)) | ({"le"} if "_bucket" in expression else set())


def result_labels(expression: str) -> set[str]:
    """The labels that are left after the outermost aggregation, if there is one."""
    grouped = re.match(r"\w+ by \(([^)]*)\)", expression)
    return {label.strip() for label in grouped[1].split(",")} if grouped else labels_of(expression)


def test_every_service_is_scraped() -> None:
    """Each service of the local stack once, at the port it has in its container, with its name as a label."""
    (job,) = prometheus()["scrape_configs"]
    targets = [target for group in job["static_configs"] for target in group["targets"]]
    assert sorted(targets) == sorted(f"{name}:{container(name)['environment']['TIDEMILL_PORT']}" for name in NAMES)
    (relabel,) = job["relabel_configs"]
    assert {re.fullmatch(relabel["regex"], target)[1] for target in targets} == set(NAMES)  # type: ignore[index]
    assert relabel["target_label"] == "service"
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_rule_files_are_mounted() -> None:
    """Each rule file lies beside the configuration, in the checkout and in the container."""
    folder = Path("/etc/prometheus")
    for name in prometheus()["rule_files"]:
        assert (ROOT / mounts("prometheus")[str(folder / name)]).is_file()


@pytest.mark.parametrize("place", expressions())
def test_expressions_name_real_series(place: str) -> None:
    """Every series is one that a service exposes, every label one that it has, and parentheses close."""
    expression = expressions()[place]
    names = re.findall(r"\btidemill_\w+", expression)
    assert set(names) <= SERIES.keys()
    assert names or "up{" in expression
    used = {label.strip() for group in re.findall(r"\b(?:by|without|on) \(([^)]*)\)", expression) for label in group.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
    assert used <= labels_of(expression)
    for left, right in ("()", "[]", "{}"):
        assert expression.count(left) == expression.count(right)


@pytest.mark.parametrize("place", expressions())
def test_counters_are_read_as_rates(place: str) -> None:
    """A counter starts anew with its process: only its growth over a range means anything; of a gauge only the value."""
    for function, name, selected in re.findall(r"(\w+)?\(?\b(tidemill_\w+)(?:\{[^}]*\})?(\[\w+\])?", expressions()[place]):
        growing = SERIES[name].kind != "gauge"
        assert (function in ("rate", "increase"), bool(selected)) == (growing, growing), name


@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_a_rule_says_what_it_means(rule: dict[str, object]) -> None:
    """A name, a comparison, a known severity, a duration, and a summary whose labels the expression leaves."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"([A-Z][a-z]+)+", str(rule["alert"]))
    assert re.search(r" (==|!=|>|<|>=|<=) -?[\d.]+$", str(rule["expr"]))
    assert re.fullmatch(r"\d+[smh]", str(rule.get("for", "0s")))
    assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    (summary,) = dict(rule["annotations"]).values()  # type: ignore[call-overload]
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= result_labels(str(rule["expr"]))


def test_alerts_have_names_of_their_own() -> None:
    """Two rules of one name would hide one another."""
    names = [rule["alert"] for rule in alert_rules()]
    assert len(names) == len(set(names)) > 4


@needs_promtool
def test_prometheus_takes_the_configuration() -> None:
    """Prometheus' own checker accepts the configuration and the rules."""
    folder = ROOT / "infra" / "prometheus"
    checked = subprocess.run([str(PROMTOOL), "check", "config", "prometheus.yml"], cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(alert_rules())} rules found" in checked.stdout


@needs_promtool
def test_prometheus_takes_the_board(tmp_path: Path) -> None:
    """Prometheus' own parser accepts every expression of the board."""
    rules = [{"record": f"r{i}", "expr": text.replace("$__rate_interval", "1m")} for i, text in enumerate(expressions().values())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    checked = subprocess.run([str(PROMTOOL), "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_are_told_apart() -> None:
    """Ids are unique, every panel has a title and a place of its own."""
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) > 10
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_panels_ask_the_provisioned_source() -> None:
    """Every panel and target names the data source that Grafana is given, and that one is the Prometheus of compose."""
    source = provisioned("datasources")
    wanted = {"type": source["type"], "uid": source["uid"]}
    for panel in board()["panels"]:
        if panel["type"] != "row":
            assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [wanted] * (len(panel["targets"]) + 1)
    assert source["url"] == f"http://prometheus:{container('prometheus')['ports'][0].split(':')[1]}"


def test_the_board_lies_where_grafana_looks() -> None:
    """The provider's folder is the one the boards are mounted at."""
    mounted = mounts("grafana")
    assert (ROOT / mounted[provisioned("dashboards")["options"]["path"]] / "tidemill.json").is_file()
    assert (ROOT / mounted["/etc/grafana/provisioning"] / "datasources").is_dir()
