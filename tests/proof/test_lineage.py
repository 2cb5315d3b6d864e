"""From a prediction to its events and back: what plain Python finds in the logs, event by event."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.demo_state import HOUR_MS, NOW_MS, demo, saved
from tests.proof.test_replay import model_version, predicted, trips
from tests.proof.world import World

from tidemill.errors import UnknownModel
from tidemill.kernel.keys import entity_key, partition_of
from tidemill.proof.lineage import events_of, predictions_of
from tidemill.proof.replay import logged
from tidemill.records import PredictionRecord

DAY_MS = 24 * HOUR_MS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log of trips, and predictions made while it grew."""
    made = World(demo(), tmp_path_factory.mktemp("offline"))
    made.publish(trips(120))
    saved(str(made.root), model_version())
    made.predict(predicted(made, i, i / 20) for i in range(21))
    made.write()
    return made


def by_hand(prediction: PredictionRecord, view: str) -> list[tuple[str, dict[str, Any]]]:
    """The trips of the prediction's entity that lie below its fence: ids and data, in the order of the log."""
    (fence,) = [entry for entry in prediction.stamp if entry.view.startswith(view)]
    field, given = ("zone", "zone") if view == "zones" else ("driver", "driver_id")
    count = int(fence.view.rsplit(".p", 1)[1])
    of_partition = [data for _, _, data in trips(120) if partition_of(entity_key(data[field]), count) == fence.partition]
    return [(data["id"], data) for data in of_partition[: fence.next] if data[field] == prediction.entities[given]]


def test_a_prediction_names_its_events(world: World) -> None:
    """All of its entity below its fence, each with its place on its topic, and the windows in which its time lies."""
    compared = 0
    for prediction in logged(world.store):
        for seen in events_of(demo(), world.store, prediction):
            expected = by_hand(prediction, seen.view)
            assert [one.id for one in seen.events] == [name for name, _ in expected]
            for one, (name, data) in zip(seen.events, expected, strict=True):
                assert f'"id":"{name}"'.encode() in world.events[seen.topic, one.partition][one.source].value
                assert one.time_ms == data["at"]
                if seen.view == "zones":
                    age_ms = prediction.time - data["at"]
                    for feature, length_ms in (("count_1h", HOUR_MS), ("count_1d", DAY_MS)):
                        assert feature in one.features or not 0 <= age_ms <= length_ms
                        assert feature not in one.features or age_ms <= 1.5 * length_ms  # a window begins with a whole tile
                    assert "last_tip" in one.features
                compared += 1
    assert compared > 200


def test_an_event_names_its_predictions(world: World) -> None:
    """Just those that name it."""
    predictions = logged(world.store)
    naming = {
        (prediction.id, seen.view, one.id, tuple(one.features))
        for prediction in predictions
        for seen in events_of(demo(), world.store, prediction)
        for one in seen.events
    }
    trip = demo().events["trips"]
    found = {
        (one.id, one.view, name, tuple(one.features))
        for name in (f"t{i}" for i in range(0, 120, 7))
        for one in predictions_of(demo(), world.store, trip, name)
    }
    assert found == {item for item in naming if int(str(item[2])[1:]) % 7 == 0}
    assert len(found) > 30
    assert predictions_of(demo(), world.store, trip, "nobody") == []
    assert predictions_of(demo(), world.store, demo().events["asked"], "t0") == []


def test_what_saw_nothing(world: World, tmp_path: Path) -> None:
    """A prediction by tensor, and one of nobody, saw no event; a model that is declared no more is named."""
    one = logged(world.store, ["p3"])[0]
    assert events_of(demo(), world.store, PredictionRecord("x", one.model, one.version, NOW_MS, NOW_MS, one.inputs, one.output)) == []
    assert {seen.view for seen in events_of(demo(), world.store, one)} == {"drivers"}
    with pytest.raises(UnknownModel):
        events_of(dataclasses.replace(demo(), models={}), world.store, one)
    assert predictions_of(demo(), World(demo(), tmp_path).store, demo().events["trips"], "t0") == []
