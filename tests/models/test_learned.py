"""Learning in the order of the log: each outcome once, the same bytes wherever it was ended, and what cannot be learned is left out whole."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.models.incremental import Incremental, Named, NamedColumn, named
from tidemill.models.learned import MOST_FAILURES, Learned, Learner, Lesson, Limits, key_of

COLUMNS = (NamedColumn("size"), NamedColumn("shop", ("north", "south")))
LIMITS = Limits(5, 100_000)


class Steps:
    """Remembers what it learned, in order; it fails, or answers NaN, where the size says so, after it has changed itself."""

    def __init__(self) -> None:
        self.rows: list[tuple[Named, bool]] = []
        self.weights: dict[str, float] = {}
        self.lost = False

    def learn_one(self, row: Named, label: bool) -> None:
        """Learns."""
        self.rows = [*self.rows[-50:], (row, label)]
        for name, value in row.items():
            self.weights[name] = self.weights.get(name, 0.0) * 0.9 + (value if isinstance(value, float) else 1.0)
        if row.get("size") == 13.0:
            raise ValueError("no such size")
        if row.get("size") == 17.0:
            self.lost = True

    def predict_proba_one(self, _row: Named) -> dict[bool, float]:
        """From what it learned last."""
        share = math.nan if self.lost else sum(label for _, label in self.rows) / max(1, len(self.rows))
        return {False: 1 - share, True: share}


def begun() -> Learned:
    """A line that learned nothing yet."""
    return Learned("v1", pickle.dumps(Incremental(Steps(), COLUMNS, 2), protocol=5))


def lesson(place: int, size: float = 1.0, label: float | None = 1.0, **more: Any) -> Lesson:
    """An outcome."""
    row = more.pop("row", {"size": size, "shop": "north"})
    return Lesson(place, more.pop("seq", place), more.pop("key", place), 1_000 + place, row, label)


def whole(lessons: list[Lesson]) -> list[bytes]:
    """All snapshots of one that nobody ended."""
    return [snapshot.encoded() for snapshot in Learner(begun(), LIMITS).take(lessons)]


SIZES = st.sampled_from([0.0, 1.0, 2.0, 5.0, 13.0, 17.0])
LESSONS = st.lists(st.tuples(SIZES, st.sampled_from([0.0, 1.0, None, math.inf]), st.integers(0, 30), st.booleans()), max_size=60)


def as_lessons(drawn: list[tuple[float, float | None, int, bool]]) -> list[Lesson]:
    """In the order of a log that may repeat outcomes, and results that a reader has seen."""
    found = [lesson(i, size, label, key=key, row={"size": size} if logged else None) for i, (size, label, key, logged) in enumerate(drawn)]
    return [one for place, one in enumerate(found) for one in ([one, one] if place % 7 == 3 else [one])]


@given(LESSONS, st.lists(st.integers(0, 60), max_size=4))
@settings(deadline=None)
def test_ended_anywhere_it_gives_the_same_bytes(drawn: list[tuple[float, float | None, int, bool]], ends: list[int]) -> None:
    """One that is ended after any lessons, and begins again with its newest snapshot and the log from there on, makes the same snapshots."""
    lessons = as_lessons(drawn)
    found: list[bytes] = []
    for end in [*sorted(ends), len(lessons)]:
        begin = Learned.decoded(found[-1]) if found else begun()
        left = [one for one in lessons[:end] if one.offset >= begin.applied]
        found += [snapshot.encoded() for snapshot in Learner(begin, LIMITS).take(left)]
    assert found == whole(lessons)


@given(LESSONS)
@settings(deadline=None)
def test_what_fails_is_as_if_it_had_not_come(drawn: list[tuple[float, float | None, int, bool]]) -> None:
    """Each outcome is learned once, in the order of the log; what fails, lacks inputs or has no value leaves no trace in the pipeline."""
    lessons, keys, wanted = as_lessons(drawn), set[int](), list[tuple[Named, bool]]()
    learner = Learner(begun(), Limits(1_000, 100_000))
    assert list(learner.take(lessons)) == []
    for one in lessons:
        fine = one.row is not None and one.row["size"] not in (13.0, 17.0) and one.label in (0.0, 1.0)
        if fine and one.key not in keys:
            keys.add(one.key)
            assert one.row is not None
            wanted.append((one.row, bool(one.label)))
    assert learner._pipeline.pipeline.rows == wanted[-51:]
    assert learner.learned == len(wanted)
    assert not learner._pipeline.pipeline.lost


def test_a_snapshot_says_where_the_log_was() -> None:
    """Its position is after the outcome that it learned last; what was left out is counted by reason."""
    lessons = [lesson(i) for i in range(3)] + [
        lesson(3, key=2),
        lesson(4, row=None),
        lesson(5, label=None),
        lesson(6, 13.0),
        lesson(7, 17.0),
    ]
    (found,) = Learner(begun(), LIMITS).take([*lessons, lesson(8), lesson(9), lesson(10)])
    assert (found.applied, found.seq, found.learned, found.known) == (10, 10, 5, 1_009)
    assert found.left_out == {
        "an outcome that was learned already": 1, "no logged inputs": 1, "no value or class that the model knows": 1,
        "the pipeline fails: ValueError": 1, "the pipeline fails: it answers NaN": 1,
    }  # fmt: skip
    assert [one.label for one in found.tail] == [1.0] * 5
    assert found.tail[0].answer == [1.0, 0.0]


def test_it_stops_when_too_many_fail_or_it_grows() -> None:
    """It says why, keeps the snapshot before, and learns nothing more."""
    (first, stopped) = Learner(begun(), LIMITS).take(
        [*(lesson(i) for i in range(5)), *(lesson(5 + i, 13.0) for i in range(40)), lesson(60)]
    )
    assert f"{MOST_FAILURES + 1} outcomes could not be learned since 5 were: ValueError: no such size" in stopped.stopped
    assert (stopped.learned, stopped.pipeline) == (first.learned, first.pipeline)
    assert list(Learner(stopped, LIMITS).take([lesson(70 + i) for i in range(9)])) == []
    (large,) = Learner(begun(), Limits(5, 200)).take([lesson(i) for i in range(9)])
    assert "200 are allowed" in large.stopped
    assert (large.learned, large.pipeline) == (0, begun().pipeline)


def test_rows_by_name() -> None:
    """What is missing is left out, and a text is itself; a pipeline is not taught what it could not be asked with."""
    assert named(COLUMNS, [1.5, 1.0]) == {"size": 1.5, "shop": "south"}
    assert named(COLUMNS, [math.nan, 7.0]) == {}
    assert named(COLUMNS, [None, None]) == {}
    model = Incremental(Steps(), COLUMNS, 2)
    assert model.known({"size": 1.0, "shop": "west", "colour": 3.0}) == {"size": 1.0}
    assert model.known({"size": "large", "shop": "north"}) == {"shop": "north"}
    assert key_of("a", 1) != key_of("a", 2) != key_of("b", 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_answers_before_anything_was_learned(classes: int) -> None:
    """All classes are as probable; a regressor that says nothing says 0."""

    class Silent:
        def predict_proba_one(self, _row: Named) -> dict[int, float]:
            return {}

        def predict_one(self, _row: Named) -> None:
            return None

    assert Incremental(Silent(), COLUMNS, classes).answer({}) == [1 / classes] * classes
    assert Incremental(Silent(), COLUMNS, 0).answer({}) == [0.0]
