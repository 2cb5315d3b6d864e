"""Metrics: the catalogue is complete and its names keep the rules."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tidemill.local.services import SERVICES as SERVICE_TABLE
from tidemill.local.services import WISHED
from tidemill.runtime import metrics

UNITS = {
    "counter": ("_total",),
    "histogram": ("_seconds", "_bytes"),
    "gauge": ("_up", "_records", "_events", "_offset", "_info", "_predictions", "_values", "_seconds", "_bytes"),
}
LISTED = list(metrics.catalogue())
SERVICES = [service.name for service in (*SERVICE_TABLE, *WISHED)]


@pytest.fixture
def process() -> Iterator[None]:
    """A process of one service, which this one is not afterwards."""
    yield
    metrics.begin(None)


@pytest.mark.parametrize("metric", LISTED, ids=lambda metric: metric.name)
def test_a_metric_keeps_the_rules(metric: metrics.Metric) -> None:
    """Names are lower case, start with the system and end in their unit; labels are few; the meaning is a sentence part."""
    assert re.fullmatch(r"tidemill_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith(UNITS[metric.kind])
    assert len(metric.labels) <= 3
    assert len(metric.meaning) > 20
    assert not metric.meaning.endswith(".")


def test_no_name_is_listed_twice() -> None:
    """One name, one metric."""
    names = [metric.name for metric in LISTED]
    assert len(names) == len(set(names))


def test_every_metric_of_the_module_is_in_the_catalogue() -> None:
    """Nothing was declared past the helpers."""
    kinds = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
    declared = [value for value in vars(metrics).values() if isinstance(value, kinds)]
    assert len(declared) == len(LISTED)


def test_the_exposition_is_what_prometheus_reads() -> None:
    """The body parses, and a counter that was raised shows its value."""
    metrics.EVENTS_IN.labels("test.exposition").inc(3)
    content_type, body = metrics.exposition()
    assert content_type.startswith("text/plain")
    samples = {
        (sample.name, sample.labels.get("topic")): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["tidemill_ingestion_events_in_total", "test.exposition"] == 3


def test_every_metric_is_shown_by_a_service() -> None:
    """None belongs to a service that there is not."""
    for metric in LISTED:
        assert set(metrics.shown_by(metric.name) or SERVICES) <= set(SERVICES), metric.name


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_exposes_its_own_metrics_alone(service: str) -> None:
    """Series at 0 of what another service counts would be taken for a service that stands still; those of the process are always there."""
    metrics.begin(service)
    names = {family.name.removesuffix("_created") for family in text_string_to_metric_families(metrics.exposition()[1].decode())}
    shown = {metric.name for metric in LISTED if service in (metrics.shown_by(metric.name) or SERVICES)}
    assert {name for name in names if name.startswith("tidemill_")} == {name.removesuffix("_total") for name in shown}
    assert {"tidemill_process_exits", "tidemill_dependency_up", "python_info"} <= names
    assert ("tidemill_audit_rounds" in names) == (service == "audit")
    assert ("tidemill_offline_rows" in names) == (service in ("offline", "predlog"))


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_counts_it_exposes(service: str) -> None:
    """Every metric that a service's own code names is among those it shows."""
    (package,) = [row.module for row in (*SERVICE_TABLE, *WISHED) if row.name == service]
    folder = Path(__file__).parents[2] / "services" / package
    names = {
        node.attr
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metrics" and node.attr.isupper()
    }
    assert names or service == "offline"  # what the offline service counts, `offline/mirror.py` counts
    for name in names:
        assert service in (metrics.shown_by(getattr(metrics, name)._name) or SERVICES), name
