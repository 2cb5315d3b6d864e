"""Metrics: the catalogue is complete and its names keep the rules."""

import re

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tidemill.runtime import metrics

UNITS = {
    "counter": ("_total",),
    "histogram": ("_seconds", "_bytes"),
    "gauge": ("_up", "_records", "_offset", "_info", "_predictions", "_values", "_seconds", "_bytes"),
}
LISTED = list(metrics.catalogue())


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
