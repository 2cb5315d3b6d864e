"""Every logged prediction is computed again, and each that is not equal, or there twice, is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.demo_state import demo, saved
from tests.faults.predictions import Predictions, Question
from tests.faults.tally import Tally
from tests.offline.lake import Sent
from tests.proof.test_replay import MODEL, model_version, predicted, trips
from tests.proof.world import World

from tidemill.records import PredictionRecord, encode


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A log, a model, and predictions in the offline store."""
    made = World(demo(), Path(tmp_path_factory.mktemp("offline")))
    made.publish(trips(120))
    saved(str(made.root), model_version())
    made.predict(known(made))
    made.write()
    return made


def known(made: World) -> list[PredictionRecord]:
    """Predictions whose entities are all given."""
    return [found for i in range(24) if None not in (found := predicted(made, i, i / 24)).entities.values()]


def taken(made: World, tally: Tally, records: list[PredictionRecord]) -> Predictions:
    """The check after it has read these records and got all its answers."""
    checked = Predictions(made.project, made.store, tally)
    for offset, record in enumerate(records):
        for question in checked.take(Sent(offset, record.id.encode(), encode(record))):
            answer(made, checked, question)
    return checked


def answer(made: World, checked: Predictions, question: Question) -> None:
    """What the view shows at the question's position."""
    view = MODEL.views[question.place]
    fold, states = made.fold(view, question.partition, question.position)
    state = states.get(question.key)
    checked.answer(question, None if state is None else fold.kernel.read_state(state, question.time_ms))


def test_right_predictions(world: World) -> None:
    """All of them come out equal."""
    tally = Tally()
    checked = taken(world, tally, known(world))
    checked.finish()
    assert tally.findings == []
    assert checked.recomputed == checked.records == len(known(world)) > 10


@pytest.mark.parametrize("what", ["output", "inputs", "stamp"])
def test_a_wrong_prediction(world: World, what: str) -> None:
    """One bit of the output or of an input, or a fence that was not the one read, is found."""
    records, tally = known(world), Tally()
    last = records[-1]
    match what:
        case "output":
            wrong = msgspec.structs.replace(last, output=last.output + 2**-20)
        case "inputs":
            wrong = msgspec.structs.replace(last, inputs=[*last.inputs[:-1], 1.0 - (last.inputs[-1] or 0.0)])
        case _:
            wrong = msgspec.structs.replace(last, stamp=[msgspec.structs.replace(entry, next=1) for entry in last.stamp])
    taken(world, tally, [*records[:-1], wrong])
    assert tally.counts["different"] == 1


def test_two_records_of_one_prediction(world: World) -> None:
    """The very same record again is a client's repetition; another one is another prediction under the same id."""
    records, tally = known(world), Tally()
    checked = taken(world, tally, [*records, records[0]])
    assert (checked.repeated, tally.counts["predictions_doubled"]) == (1, 0)
    taken(world, tally, [*records, msgspec.structs.replace(records[0], output=0.25)])
    assert tally.counts["predictions_doubled"] == 1


def test_predictions_that_came_too_late_are_replayed(world: World) -> None:
    """What the fold has passed is computed from the offline store in the end; what is not there is missing."""
    tally = Tally()
    checked = Predictions(world.project, world.store, tally)
    records = known(world)
    strange = msgspec.structs.replace(records[1], id="strange")
    for record in (records[0], strange):
        checked.too_late(checked.take(Sent(0, b"", encode(record)))[0])
    checked.finish()
    assert checked.recomputed == 1
    assert tally.counts["predictions_missing"] == 1
    assert tally.counts["different"] == 0


@pytest.mark.parametrize("back", [True, False])
def test_predictions_whose_model_is_out_of_reach(world: World, back: bool) -> None:
    """They are tried again in the end; what is out of reach even then has not been computed again, and is told."""
    tally, models = Tally(), world.root / "models"
    away = models.rename(world.root / "away")
    checked = taken(world, tally, known(world))
    assert checked.recomputed == 0
    if back:
        away.rename(models)
    checked.finish()
    if not back:
        away.rename(models)
    count = len(known(world))
    assert (checked.recomputed, tally.counts["predictions_missing"]) == ((count, 0) if back else (0, count))
