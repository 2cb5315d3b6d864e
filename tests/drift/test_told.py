"""What drift detection takes up from the alerts topic when it starts: what it told itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.demo_state import demo

from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.records import AlertRecord
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert
from tidemill.streams.topics import alerts_topic, topic_specs
from tidemill_drift.detector import Detector
from tidemill_drift.monitor import LEAST_ROWS
from tidemill_drift.settings import WindowSettings
from tidemill_drift.windows import Windows

OURS = AlertRecord("ours", "m", "1", "data_quality", "amount", "opened", 0, 5, "missing", 1.0, 1.0, 0.3, 1, "worse", source="drift")


def test_a_window_with_few_rows_is_named_in_the_log() -> None:
    """It is not judged: so nobody takes the silence for a model that is well."""
    detector = Detector(demo(), KafkaSettings(bootstrap_servers="-"), "/nowhere", WindowSettings.load(), HealthBoard())
    for topic in detector._topics:
        with capture_logs() as lines:
            assert detector._judge(topic, ("m", "1", 5), [None] * (LEAST_ROWS - 1)) == []
        (line,) = lines
        assert (line["event"], line["model"], line["start"], line["rows"]) == ("window not judged", "m", 5, LEAST_ROWS - 1)
        assert line["reason"] == "fewer than 200 rows"


@pytest.mark.integration
async def test_alerts_of_the_audit_are_not_taken_up(kafka: str, topic_prefix: str) -> None:
    """An alert of the audit neither opens nor closes an episode, with a source or without; an old one of drift detection counts as ever."""
    project, settings = replace(demo(), name=topic_prefix), KafkaSettings(bootstrap_servers=kafka)
    topic = alerts_topic(topic_prefix)
    await ensure_topics(settings, {topic: topic_specs(project)[topic]})
    change: Any = msgspec.structs.replace
    told = [
        OURS,
        change(OURS, id="closed by the audit", state="closed", test="audit", source="audit", partition=1, view="zones"),
        change(OURS, id="old, of the audit", state="closed", test="audit", source=None),
        change(OURS, id="old, ours", subject="fare", source=None),
    ]
    async with started_producer(settings) as made:
        for alert in told:
            await append_alert(made, topic_prefix, alert)
    detector = Detector(project, settings, "/nowhere", WindowSettings.load(), HealthBoard())
    windows: dict[str, Windows[Any]] = {topic: Windows(10, 10) for topic in detector._topics}
    for window in windows.values():
        window.closed_ms = 100
    episodes, ids = await detector._told(windows)
    assert ids == {"ours", "old, ours"}
    assert set(episodes._told) == {("m", "1", "data_quality", "amount"), ("m", "1", "data_quality", "fare")}
