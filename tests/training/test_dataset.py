"""A training row is what a request at that moment would have been answered, to the bit, and nothing known later leaks into it."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.demo_state import HOUR_MS, NOW_MS, demo
from tests.proof.world import Happened, World
from tests.training.town import FOLDER, MINUTE_MS, ZONES, happened, simulated, town

from tidemill import Model, Outcome, Request
from tidemill.errors import TidemillError
from tidemill.training import sharing
from tidemill.training.dataset import TrainingSet, build

MODEL = demo().models["big_tip"]
LATER = NOW_MS + 10**9


def built(world: World, until_ms: int = LATER, model: Model = MODEL) -> TrainingSet:
    """The training set of a world."""
    return build(world.project, str(FOLDER), model, world.store, until_ms, lambda _: None)


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_what_requests_would_have_been_answered(tmp_path: Path, seed: int) -> None:
    """Every row equals the answer of a system that ran live and was asked at that moment, bit for bit."""
    examples = built(town(tmp_path / "bulk", 80, seed))
    categories = {spec.name: spec.categories for spec in examples.inputs if spec.kind == "category"}
    expected = simulated(happened(80, seed), MODEL, categories, tmp_path / "live")
    assert len(examples) > 50
    for subject, time_ms, row in zip(examples.subjects, examples.times_ms, examples.matrix, strict=True):
        at, vector = expected[subject]
        assert (time_ms, row.tobytes()) == (at, vector.tobytes()), subject
    assert np.isnan(examples.matrix).any(axis=1).any()
    assert not np.isnan(examples.matrix).all(axis=0).any()


def test_labels_subjects_and_columns(tmp_path: Path) -> None:
    """Examples are the subjects with an outcome, in order of time, labelled by the first one that was known after the request."""
    examples = built(town(tmp_path))
    first: dict[str, float] = {}
    for _, name, data in happened(80):
        if name == "trips" and data["tip"] is not None:
            first.setdefault(data["id"], float(data["tip"] > 2))
    assert dict(zip(examples.subjects, examples.labels, strict=True)) == first
    assert (np.diff(examples.times_ms) >= 0).all()
    assert [spec.name for spec in examples.inputs] == MODEL.input_names
    assert [spec.kind for spec in examples.inputs[-3:]] == ["number", "category", "number"]
    assert examples.inputs[-2].categories == ["card", "cash"]


def later_changed(events: list[Happened], time_ms: int) -> list[Happened]:
    """The same history, but everything known after a moment came out otherwise."""
    changed = []
    for known, name, data in events:
        other = {"fare": data["fare"] * 7 + 1, "zone": ZONES[0], "driver": 0, "tip": 9.0} if name == "trips" and known > time_ms else {}
        changed.append((known, name, data | other))
    return changed


@pytest.mark.parametrize("minutes", [40, 120, 200])
def test_nothing_known_later_leaks(tmp_path: Path, minutes: int) -> None:
    """Rows of requests before a moment stay the same bits when all events known after it are others."""
    moment = NOW_MS + minutes * MINUTE_MS
    other = World(demo(), tmp_path / "other")
    other.publish(later_changed(happened(80), moment))
    other.write()
    before, after = built(town(tmp_path / "one")), built(other)
    rows, others = dict(zip(before.subjects, before.matrix, strict=True)), dict(zip(after.subjects, after.matrix, strict=True))
    early = [subject for subject, time_ms in zip(before.subjects, before.times_ms, strict=True) if time_ms <= moment]
    assert early
    assert all(rows[subject].tobytes() == others[subject].tobytes() for subject in early)
    assert any(rows[subject].tobytes() != others[subject].tobytes() for subject in rows)


def test_until_hides_what_became_known_later(tmp_path: Path) -> None:
    """Requests, announcements and outcomes known at or after `until` do not exist for it."""
    until = NOW_MS + 2 * HOUR_MS
    events = happened(80)
    asked = next(data for _, name, data in events if name == "asked" and data["id"] == "t0")
    again = (until + 1, "asked", asked | {"distance": 999.0})
    whole, cut = World(demo(), tmp_path / "whole"), World(demo(), tmp_path / "cut")
    whole.publish(sorted([*events, again], key=lambda event: event[0]))
    cut.publish([event for event in events if event[0] < until])
    for world in (whole, cut):
        world.write()
    one, two = built(whole, until), built(cut)
    kept = [i for i, time_ms in enumerate(two.times_ms) if time_ms < until]
    assert one.subjects == [two.subjects[i] for i in kept]
    assert one.matrix.tobytes() == two.matrix[kept].tobytes()


@pytest.mark.integration
def test_processes_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether views are read here or in processes of their own, the bits are the same; also of a view that the project's file has otherwise."""
    world, zones = town(tmp_path, 30), dataclasses.replace(demo().views["zones"], windows=["30m"])
    other = dataclasses.replace(MODEL, inputs=[zones])
    here = [built(world), built(world, model=other)]
    monkeypatch.setattr(sharing, "QUESTIONS_WORTH_A_PROCESS", 1)
    assert [found.matrix.tobytes() for found in (built(world), built(world, model=other))] == [found.matrix.tobytes() for found in here]


def test_a_model_of_requests_alone(tmp_path: Path) -> None:
    """A model without views has examples too, and a null is a missing number."""
    asked, trips = demo().events["asked"], demo().events["trips"]
    model = Model(
        "big_tip", asked, "at", "id", [Request("distance"), Request("payment", str)], Outcome(trips, "tip > 2", subject="id"), dict
    )
    examples = built(town(tmp_path), model=model)
    assert examples.matrix.shape == (len(examples), 2)
    assert set(examples.matrix[:, 1].tolist()) == {0.0, 1.0}


def test_parquet_holds_the_set(tmp_path: Path) -> None:
    """The file beside the model gives the set back by names."""
    examples = built(town(tmp_path, 30))
    table = pq.read_table(io.BytesIO(examples.to_parquet()))
    assert table.column_names == ["subject", "time", "label", *MODEL.input_names]
    assert table["subject"].to_pylist() == examples.subjects
    assert np.array_equal(table["zones__count_1d"].to_numpy(), examples.values[:, 1], equal_nan=True)
    assert set(table["payment"].to_pylist()) == {"card", "cash"}
    assert table["time"].cast(pa.int64()).to_pylist() == examples.times_ms.tolist()


def test_a_store_without_tables(tmp_path: Path) -> None:
    """Before the offline writer has run the error says what to publish."""
    world = World(demo(), tmp_path)
    with pytest.raises(
        TidemillError, match=r"'big_tip' has no training examples: no event 'asked' announces a subject; publish events 'asked'"
    ):
        built(world)


def test_no_outcome_yet(tmp_path: Path) -> None:
    """Announcements alone are no examples."""
    world = World(demo(), tmp_path)
    world.publish([event for event in happened(20) if event[1] == "asked"])
    world.write()
    with pytest.raises(TidemillError, match="no announced subject has an outcome; publish events 'asked' and 'trips'"):
        built(world)


def test_a_view_that_has_seen_nothing(tmp_path: Path) -> None:
    """Features of a view without records are missing in every row, as they would be in a request."""
    world = World(demo(), tmp_path)
    world.publish([(known, name, data | ({"driver": 99} if name == "trips" else {})) for known, name, data in happened(30)])
    world.write()
    examples = built(world)
    column = MODEL.input_names.index("drivers__max_fare")
    assert all(math.isnan(value) for value in examples.matrix[:, column])
