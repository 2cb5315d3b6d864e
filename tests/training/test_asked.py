"""Many questions at once, texts among them, against the fold of one event after the other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import ASKEW, TILES, Happening, Values, streams, view_of

from tidemill import FeatureView, age, count, distinct, first, last, mean
from tidemill.archive.columns import ID, KNOWN, TIME
from tidemill.archive.view_rows import KEY
from tidemill.training.asked import Questions, at_once, features_of, one_by_one

TEXTS = [last("word"), first("word"), last("word", windows=["2m", "1h"]), first("word", windows=["10m", "1h"]), count("word"), age("word")]
MIXED = [*TEXTS, last("x"), first("y"), mean("x"), count()]
TYPES = {"x": pa.float64(), "y": pa.int64(), "flag": pa.bool_(), "word": pa.string()}


def rows_of(view: FeatureView, histories: list[list[Happening]]) -> pa.Table:
    """The archived events of some entities, in the order of known: an event becomes known when the one before it has."""
    found, known = list[dict[str, object]](), 0
    for nth in range(max(map(len, histories))):
        for entity, history in enumerate(histories):
            if nth < len(history):
                event = history[nth]
                known = max(known, event.time_ms)
                values = {name: getattr(event.values, name) for name in view.value_fields}
                found.append({KEY: "abc"[entity], KNOWN: known, TIME: event.time_ms, ID: event.id, **values})
    types = [(KEY, pa.string()), (KNOWN, pa.int64()), (TIME, pa.int64()), (ID, pa.string())]
    return pa.Table.from_pylist(found, pa.schema([*types, *((name, TYPES[name]) for name in view.value_fields)]))


@pytest.mark.slow
@given(
    histories=st.lists(streams(), min_size=1, max_size=3),
    tiles=st.sampled_from([TILES, ASKEW]),
    steps=st.lists(st.integers(0, 4_000), min_size=1, max_size=6),
    mixed=st.booleans(),
    erase=st.sampled_from([None, None, "flag and x > 0"]),
)
def test_texts_at_once_are_those_of_the_fold(
    histories: list[list[Happening]], tiles: tuple[str, dict[str, str]], steps: list[int], mixed: bool, erase: str | None
) -> None:
    """For any moment, of any entity: the same text, or none, whoever of the two ways answers."""
    view = view_of(MIXED if mixed else TEXTS, tiles, erase)
    rows = rows_of(view, histories)
    known = sorted(rows[KNOWN].to_pylist())
    times = np.array([known[step % len(known)] + step * 1_000 for step in steps])
    keys = pa.array(["abcd"[step % 4] for step in steps])
    questions = Questions(keys, times, np.full(len(steps), -1))
    expected, found = one_by_one(view, rows, questions), features_of(view, rows, questions)
    assert repr(found.tolist()) == repr(expected.tolist())
    answered, left = at_once(view, rows, questions)
    there = np.setdiff1d(np.arange(len(steps)), left)
    assert repr(answered[there].tolist()) == repr(expected[there].tolist())


def test_views_with_texts_are_answered_at_once() -> None:
    """Unless there is a sketch beside them; a view without rows has no text."""
    event = Happening(1_700_000_000_000, None, Values(1.0, 2, True, "a"))
    for features, left in ((TEXTS, 0), ([*TEXTS, distinct("word")], 1)):
        view = view_of(features)
        rows, questions = rows_of(view, [[event]]), Questions(pa.array(["a"]), np.array([event.time_ms]), np.array([-1]))
        assert len(at_once(view, rows, questions)[1]) == left
        assert features_of(view, rows, questions)[0][0] == "a"
        assert np.isnan(features_of(view, rows.slice(0, 0), questions)[0][0])


def test_questions_before_an_entity_was_erased_are_answered_at_once() -> None:
    """Those after it one by one; both as a request would have seen it."""
    start, view = 1_700_000_000_000, view_of(MIXED, erase="flag")
    events = [Happening(start + 1_000 * i, None, Values(float(i), 2, i == 2, f"w{i}")) for i in range(4)]
    times = np.array([event.time_ms + 1 for event in events])
    questions = Questions(pa.array(["a"] * 4), times, np.full(4, -1))
    rows = rows_of(view, [events, [Happening(start, None, Values(1.0, 2, False, "b"))]])
    assert at_once(view, rows, questions)[1].tolist() == [2, 3]
    found, counts = features_of(view, rows, questions), [feature.name for feature in view.served].index("count")
    assert found[:, 0].tolist()[:2] == ["w0", "w1"]
    assert found[3, 0] == "w3"
    assert [found[i, counts] for i in (0, 1, 3)] == [1.0, 2.0, 1.0]
    assert all(np.isnan(value) for value in found[2])
