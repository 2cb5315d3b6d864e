"""Training sets of generated projects, judged by SQL: which rows there are, their labels, and their features."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.verify.archive import Raw, archived
from tests.verify.judging import differences, played
from tests.verify.projects import CONDITIONS, START_MS, Generated, generated, with_model

from tidemill.archive.columns import event_folder
from tidemill.declarations import Event, Model, Outcome, Request
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.testing import World
from tidemill.training.dataset import TrainingSet
from tidemill.training.spine import Archived, archived_spine, model_fields
from tidemill.verify.checks import check_training_set
from tidemill.verify.labels import labelled

MINUTE = 60_000


class Asked(NamedTuple):
    """A generated project with a model on its event, whose outcome the same event brings, and until when the set is made."""

    made: Generated
    model: Model
    until_ms: int


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """Subjects come back, and answer what they themselves asked before."""
    made = draw(generated())
    value = draw(st.sampled_from((*CONDITIONS, "x", "y", "ok")))
    event = made.project.events["told"]
    outcome = Outcome(
        event,
        value,
        draw(st.sampled_from(("shop", "number"))),
        within=draw(st.sampled_from(("1ms", "1s", "5m", "3h", "2d"))),
        absent=draw(st.sampled_from((None, 0, 1.0))),
    )
    inputs = [
        view.select(*numbers)
        for view in made.project.views.values()
        if (numbers := [feature.name for feature in view.served if not feature.aggregation.gives_list])
    ]
    model = Model("m", event, "at", outcome.subject, [*inputs, Request("y")], outcome, lambda: None)
    made.project = with_model(made.project, model)
    last_ms = made.stream[-1].known_ms
    return Asked(made, model, draw(st.sampled_from((last_ms + 1, last_ms, last_ms + 6 * MINUTE, last_ms + 3 * 1440 * MINUTE, START_MS))))


def trained_on(world: World, until_ms: int) -> TrainingSet | None:
    """The training set; None: there are no examples."""
    try:
        return world.training_set("m", until=until_ms)
    except TidemillError as error:
        assert "no training examples" in str(error)  # noqa: PT017 - any other error fails
        return None


@settings(max_examples=120)
@given(asked())
def test_a_training_set_is_what_the_documentation_says(given_: Asked) -> None:
    """The rows are the questions that have an answer, absent ones included, and each feature is that of the question's moment. Served values
    are right beside a model too."""
    made, model, until_ms = given_
    run = played(made)
    assert differences(made, run) == []
    archive, examples = run.archive, trained_on(run.world, until_ms)
    if examples is None:
        assert all(one.label is None for one in labelled(model, archive, archive, until_ms))
        return
    archives = dict.fromkeys(made.project.views, archive)
    found = check_training_set(model, examples.table(), (archive, archive), archives, until_ms, 100, 0)
    assert [example for compared in found for example in compared.examples] == []
    assert [compared.values for compared in found[:2]] == [len(examples.labels), len(examples.labels)]  # rows, and questions with an answer
    assert len(found) == 2 + len(model.views)


@pytest.mark.parametrize(
    "at",
    ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-14", "1960-01-01T00:00:00Z", "1969-12-31T23:59:59.9999Z", "", "now", "2023-11-14 22:13:20+01:00", "1e3", "10000-01-01T00:00:00Z"],
)  # fmt: skip
def test_what_is_no_moment_asks_nothing(at: str, tmp_path: Path) -> None:
    """A text that is no moment for an event of today, but was archived before it was to be one, is none for training nor for SQL."""
    event = Event("told", {"id": str, "known": int, "at": str, "who": str, "x": float}, time="known", id="id")
    model = Model("m", event, "at", "who", [Request("x")], Outcome(event, "x", "who", absent=3), lambda: None)
    data = {"id": "1", "known": START_MS, "at": at, "who": "a", "x": 1.0}
    archive = archived(event, [Raw("told", 0, 0, START_MS, START_MS, "1", data)])
    store, until_ms = OfflineStore(tmp_path), START_MS + 9 * 1440 * MINUTE
    table = store.counted_table(event_folder("told"), archive.schema)
    table.open()
    table.append(archive, {})
    found = [(one.subject, one.at_ms, one.label) for one in labelled(model, archive, archive, until_ms) if one.label is not None]
    try:
        spine = archived_spine(model, Archived(store, model_fields(model), until_ms), until_ms)
    except TidemillError:
        assert found == []
    else:
        assert found == list(zip(spine.subjects.to_pylist(), spine.times_ms.tolist(), spine.labels.tolist(), strict=True))
