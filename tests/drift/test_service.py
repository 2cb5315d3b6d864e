"""The service as a process beside a real broker: alerts told once, whatever ends in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import msgspec
import pytest
from tests.drift.rig import DAY_MS, ROOT, START_MS, Rig, told
from tests.logged import faults, whole_lines

from tidemill.catalogue.definitions import NOTHING
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.local.stack import Stack
from tidemill.records import DeploymentRecord, PredictionRecord, encode
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.deployments import append_deployment
from tidemill.streams.judgements import read_judgements
from tidemill.streams.topics import predictions_topic

pytestmark = pytest.mark.integration

SCHEMA = json.loads((ROOT / "schemas" / "alert.v1.schema.json").read_text())
JUDGEMENT = json.loads((ROOT / "schemas" / "judgement.v1.schema.json").read_text())
EXPECTED = [
    ("feature_drift", "size", "closed", 4),
    ("feature_drift", "size", "opened", 2),
    ("performance", "auc", "closed", 4),
    ("performance", "auc", "opened", 2),
    ("performance", "calibration", "closed", 4),
    ("performance", "calibration", "opened", 2),
]


@pytest.fixture
def rig(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    """Return a project of its own on the shared broker."""
    made = Rig(topic_prefix, tmp_path, kafka)
    yield made
    made.stop()


def test_a_shift_is_told_once_through_kills(rig: Rig) -> None:
    """Two days of another world open episodes and calm closes them; killed after every few windows it tells the very same, each id once."""
    days = [rig.day(day, shift=1.5 * (day in (2, 3)), turned=day in (2, 3)) for day in range(6)]
    rig.produce(days[0], days[1])
    rig.start()
    rig.wait_judged(1)
    rig.kill()
    rig.produce(days[2], days[3])
    rig.start()
    rig.until(lambda: "has moved" in rig.said())
    rig.kill()
    rig.start()
    rig.produce(days[4], days[5])
    rig.until(lambda: rig.said().count("is back") == 3)
    rig.kill()
    rig.start()
    rig.until(lambda: '"ready"' in rig.get("/health/ready"))
    alerts = rig.alerts()
    assert told(alerts) == EXPECTED
    assert len({alert.id for alert in alerts}) == len(alerts)
    for alert in alerts:
        jsonschema.validate(json.loads(encode(alert)), SCHEMA)


def test_changes_of_models_are_no_faults(rig: Rig) -> None:
    """The detector begins anew within an episode: it tells what it would have told, and nothing looks like a fault."""
    rig.produce(*(rig.day(day, shift=1.5 * (day in (2, 3)), turned=day in (2, 3)) for day in range(3)))
    now = plan_of(NOTHING, rig.project, 5, Surroundings()).first
    rig.start()
    rig.until(lambda: '"ready"' in rig.get("/health/ready"))
    begun = rig.log.stat().st_size
    for number in (1, 2, 3):
        rig.produce(rig.day(2 + number, shift=1.5 * (number == 1), turned=number == 1))
        more = msgspec.structs.replace(now.models[0], name=f"more_{number}")
        change = msgspec.structs.replace(now, number=number, models=(*now.models, more))
        asyncio.run(append_definitions(rig.settings, rig.name, change))
        rig.wait_said(f'"catalogue":{number}')
    rig.until(lambda: rig.said().count("is back") == 3)
    assert told(rig.alerts()) == EXPECTED
    assert faults(whole_lines(rig.log.read_bytes()[begun:])) == []


def test_stationary_days_and_bad_messages_tell_nothing(rig: Rig) -> None:
    """Days alike raise no alert; what cannot be read, a model without artifact, one whose manifest lacks its metrics and a request from the future are passed over."""
    rig.produce(rig.day(0))
    topic = predictions_topic(rig.name)
    future = PredictionRecord("f", "late", "v1", START_MS + 9000 * DAY_MS, START_MS, [0.0, 1.0], 0.5)
    narrow = PredictionRecord("n", "late", "v1", START_MS + DAY_MS, START_MS + DAY_MS, [0.0], 0.5)
    rig.produce(
        {(topic, 0): [b"{", b"\xff", encode(future), encode(narrow)]},
        rig.day(1),
        rig.day(1, version="gone"),
        rig.day(1, version="broken"),
        rig.day(2),
    )
    rig.start()
    rig.wait_judged(8)
    assert rig.alerts() == []
    assert rig.said().count("message cannot be read") == 2
    assert rig.said().count("models/late/gone cannot be read") == 2
    assert rig.said().count("window not judged") == 3
    assert "KeyError" in rig.said()
    assert 'tidemill_drift_ignored_total{model="late"} 1.0' in rig.get("/metrics")
    assert rig.processes[-1].poll() is None


def test_a_version_that_is_replaced_is_watched_no_more(rig: Rig) -> None:
    """Its open episodes are closed as superseded, its later windows are skipped, and each says why; small windows wait, also through a kill."""
    few = {place: values[:150] for place, values in rig.day(1, version="v2").items()}
    rig.produce(rig.day(0), rig.day(1, shift=1.5), few, rig.day(2))
    rig.start()
    rig.until(lambda: "has moved" in rig.said())
    rig.kill()
    rig.start()
    asyncio.run(append_deployment(rig.settings, rig.name, DeploymentRecord("late", "v2", "", "", 0), 30))
    rig.wait_said("not watched any more")
    rig.produce(rig.day(3), rig.day(4))
    rig.wait_said('"reason":"superseded by v2"')
    opened, closed = rig.alerts()
    assert (opened.state, closed.state, closed.reason, closed.subject) == ("opened", "closed", "superseded", "size")
    judgements = asyncio.run(read_judgements(rig.settings, rig.name))
    said = {(one.version, one.what, (one.end - START_MS) // DAY_MS): (one.state, one.why) for one in judgements}
    assert said["v1", "inputs", 1] == ("judged", "")
    assert len(said) == len(judgements)
    for one in judgements:
        jsonschema.validate(json.loads(encode(one)), JUDGEMENT)


def test_kafka_away_is_said_and_survived(servers: Stack, topic_prefix: str, tmp_path: Path) -> None:
    """Without the broker the service says so, ends neither itself nor its episodes, and goes on when the broker is back."""
    folder = tmp_path / "project"
    folder.mkdir()
    rig = Rig(topic_prefix, folder, servers.kafka)
    try:
        rig.produce(rig.day(0), rig.day(1, shift=1.5), rig.day(2, shift=1.5))
        rig.start()
        rig.until(lambda: "has moved" in rig.said())
        servers.halt("kafka")
        rig.until(lambda: '"unready"' in (said := rig.get("/health/ready")) and "Kafka at" in said)
        servers.resume("kafka")
        rig.until(lambda: '"ready"' in rig.get("/health/ready"))
        rig.produce(rig.day(3), rig.day(4))
        rig.until(lambda: "is back" in rig.said())
        assert told(rig.alerts()) == [("feature_drift", "size", "closed", 3), ("feature_drift", "size", "opened", 1)]
        assert len(rig.processes) == 1
        assert rig.processes[0].poll() is None
    finally:
        rig.stop()
