"""Training sets of generated projects, judged by SQL: which rows there are, their labels, and their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.verify.archive import Raw, archived
from tests.verify.changing import changing
from tests.verify.judging import differences, played
from tests.verify.projects import CONDITIONS, OF_LATER, START_MS, Generated, generated, with_model

from tidemill.archive.columns import event_folder
from tidemill.declarations import Event, Model, Outcome, Request, Selection
from tidemill.declarations.project import Project
from tidemill.errors import DeclarationError, TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.testing import World
from tidemill.timestamps import EARLIEST_MS
from tidemill.training.dataset import TrainingSet
from tidemill.training.spine import Archived, archived_spine, model_fields
from tidemill.verify.checks import check_training_set
from tidemill.verify.labels import labelled

MINUTE = 60_000


class Labelling(NamedTuple):
    """The outcome of a model. Subjects come back, and answer what they themselves asked before."""

    value: str
    subject: str
    within: str
    absent: float | str | None
    classes: tuple[str, ...] = ()

    def model(self, project: Project) -> Model:
        """A model on the project's event, whose outcome the same event brings, over all views."""
        event = project.events["told"]
        inputs = [
            view.select(*numbers)
            for view in project.views.values()
            if (numbers := [feature.name for feature in view.served if feature.aggregation.gives is not list])
        ]
        outcome = Outcome(event, self.value, self.subject, within=self.within, absent=self.absent, classes=self.classes)
        return Model("m", event, "at", self.subject, [*inputs, Request("y")], outcome, lambda: None)

    def fits(self, project: Project) -> bool:
        """Whether the event still has what it reads."""
        try:
            self.model(project)
        except DeclarationError:
            return False
        return True


@st.composite
def labellings(draw: st.DrawFn, project: Project) -> Labelling:
    """An outcome."""
    later = [
        column for name, columns in OF_LATER.items() if name in project.events["told"].fields for column in columns if column != "sort"
    ]
    value = draw(st.sampled_from((*CONDITIONS, "x", "y", "ok", *later, *["kind"] * 4)))
    classes: tuple[str, ...] = ()
    absent: float | str | None = draw(st.sampled_from((None, 0, 1.0)))
    if value == "kind":
        classes = draw(st.sampled_from(((), ("a", "b"), ("b", "zz"))))
        absent = draw(st.sampled_from((None, *(classes or ("a", "none")))))
    subject, within = draw(st.sampled_from(("shop", "number"))), draw(st.sampled_from(("1ms", "1s", "5m", "3h", "2d")))
    return Labelling(value, subject, within, absent, classes)


@st.composite
def asked(draw: st.DrawFn, projects: st.SearchStrategy[Generated]) -> tuple[Generated, int]:
    """A generated project with a model, whose outcome may change too, and until when the last set is made."""
    made = draw(projects)
    labelling = draw(labellings(made.project))
    made.project = with_model(made.project, labelling.model(made.project))
    for i, change in enumerate(made.changes):
        if draw(st.booleans()) or not labelling.fits(change.project):
            labelling = draw(labellings(change.project))
        made.changes[i] = change._replace(project=with_model(change.project, labelling.model(change.project)))
    last_ms = made.stream[-1].known_ms
    return made, draw(st.sampled_from((last_ms + 1, last_ms, last_ms + 6 * MINUTE, last_ms + 3 * 1440 * MINUTE, START_MS)))


class Trained(NamedTuple):
    """A training set (None: there were no examples), and the model by which it was made."""

    model: Model
    until_ms: int
    examples: TrainingSet | None


def trained(world: World, project: Project, since: Mapping[str, int], until_ms: int) -> Trained:
    """The training set of now."""
    model = project.models["m"]
    inputs = [
        item.view.as_version(1, in_force=True, since=since).select(*item.names) if isinstance(item, Selection) else item
        for item in model.inputs
    ]
    model = replace(model, inputs=inputs)
    try:
        return Trained(model, until_ms, world.training_set("m", until=until_ms))
    except TidemillError as error:
        assert "no training examples" in str(error)  # noqa: PT017 - any other error fails
        return Trained(model, until_ms, None)


def newest_before(archive: pa.Table, until_ms: int) -> int:
    """When the newest event became known, of those that became known before a moment; -1 without one."""
    known = [moment // 1000 for moment in archive["_known"].cast(pa.int64()).to_pylist()]
    return max((known_ms for known_ms in known if known_ms < until_ms), default=-1)


def judge(one: Trained, archive: pa.Table) -> None:
    """The rows are the questions that have an answer, absent ones included, and each feature is that of the question's moment."""
    model, examples = one.model, one.examples
    until_ms = newest_before(archive, one.until_ms) + 1  # a wait is over by the time of the events
    if examples is None:
        labels = {found.label for found in labelled(model, archive, archive, until_ms)} - {None}
        assert not labels & set(model.outcome.classes or labels)
        return
    archives = {view.name: archive for view in model.views}
    found = check_training_set(model, examples.table(), (archive, archive), archives, until_ms, 100, 0)
    assert [example for compared in found for example in compared.examples] == []
    assert [compared.values for compared in found[:3]] == [len(examples.labels)] * 3  # rows, questions with an answer, and what they carry
    assert len(found) == 3 + len(model.views)


@pytest.mark.slow
@settings(max_examples=60)
@given(asked(generated()))
def test_a_training_set_is_what_the_documentation_says(given_: tuple[Generated, int]) -> None:
    """Rows, labels and features. Served values are right beside a model too."""
    made, until_ms = given_
    run = played(made)
    assert differences(made, run) == []
    judge(trained(run.world, made.project, run.since, until_ms), run.archive)


@pytest.mark.slow
@settings(max_examples=60)
@given(asked(changing()))
def test_what_is_trained_on_is_what_is_in_force(given_: tuple[Generated, int]) -> None:
    """Before each change of views and outcomes, and after the last: all that came before is seen by the declarations of the moment."""
    made, until_ms = given_
    sets = list[Trained]()
    run = played(made, lambda world, project, since: sets.append(trained(world, project, since, max(world.now_ms + 1, EARLIEST_MS))))
    assert differences(made, run) == []
    sets.append(trained(run.world, made.changes[-1].project, run.since, until_ms))
    for one in sets:
        judge(one, run.archive)


@pytest.mark.parametrize(
    "at",
    ["2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-14", "1960-01-01T00:00:00Z", "1969-12-31T23:59:59.9999Z", "", "now", "2023-11-14 22:13:20+01:00", "1e3", "10000-01-01T00:00:00Z"],
)  # fmt: skip
def test_what_is_no_moment_asks_nothing(at: str, tmp_path: Path) -> None:
    """A text that is no moment for an event of today, but was archived before it was to be one, is none for training nor for SQL."""
    event = Event("told", {"id": str, "known": int, "at": str, "who": str, "x": float}, time="known", id="id")
    model = Model("m", event, "at", "who", [Request("x")], Outcome(event, "x", "who", absent=3), lambda: None)
    data = {"id": "1", "known": START_MS, "at": at, "who": "a", "x": 1.0}
    later_ms = START_MS + 8 * 1440 * MINUTE  # after the wait: an event says that time went on
    later = {"id": "2", "known": later_ms, "at": "2023-11-22T12:00:00Z", "who": "b", "x": 1.0}
    archive = archived(event, [Raw("told", 0, 0, START_MS, START_MS, "1", data), Raw("told", 0, 1, later_ms, later_ms, "2", later)])
    store, until_ms = OfflineStore(tmp_path), START_MS + 9 * 1440 * MINUTE
    table = store.counted_table(event_folder("told"), archive.schema)
    table.open()
    table.append(archive, {})
    found = [(one.subject, one.at_ms, one.label) for one in labelled(model, archive, archive, later_ms + 1) if one.label is not None]
    try:
        spine = archived_spine(model, Archived(store, model_fields(model), until_ms), until_ms)
    except TidemillError:
        assert found == []
    else:
        assert found == list(zip(spine.subjects.to_pylist(), spine.times_ms.tolist(), spine.labels.tolist(), strict=True))
