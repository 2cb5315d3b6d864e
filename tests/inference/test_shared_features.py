"""Instances of one request that share entities and times get the same features, and each view is read once for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import READ_OFFSETS_MS, START_MS, Happening, Values, fold_all, numbers, streams

from tidemill.kernel.served import serve
from tidemill.names import log_name
from tidemill.online.reader import Stored
from tidemill.records import StampEntry
from tidemill_inference.computing import Features

KEYS = [b"a", b"b", b"new", None]
FENCE = StampEntry(log_name("v", 1), 0, 1)


@pytest.mark.slow
@given(
    st.lists(streams(), min_size=2, max_size=2), st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(READ_OFFSETS_MS)), max_size=12)
)
def test_shared_features_are_those_of_one_instance(histories: list[list[Happening]], asked: list[tuple[bytes | None, int]]) -> None:
    """Whatever was asked before in the same request, an entity at a time has the features that a request of its own would see."""
    kernel = numbers()
    view, values = kernel.view, [kernel.encode(fold_all(kernel, events)) for events in histories]
    stored = {b"a": Stored(values[0], FENCE), b"b": Stored(values[1], FENCE, since_ms=START_MS), b"new": Stored(None, FENCE)}
    features = Features()
    for key, offset_ms in asked:
        time_ms, item = START_MS + offset_ms, None if key is None else stored[key]
        reading = None if item is None or item.value is None else kernel.read(item.value, time_ms, item.since_ms)
        assert repr(features.of(kernel, key, item, time_ms)) == repr(serve(view, reading, time_ms))


def test_an_entity_is_read_once_for_each_time() -> None:
    """The same object is given for the same entity and time, another one for another entity or another time."""
    kernel = numbers()
    features, item = Features(), Stored(None, FENCE)
    first = features.of(kernel, b"a", item, START_MS)
    assert features.of(kernel, b"a", item, START_MS) is first
    assert features.of(kernel, b"b", item, START_MS) is not first
    assert features.of(kernel, b"a", item, START_MS + 1) is not first


def test_another_read_of_the_store_is_read_anew() -> None:
    """A shadow may read an entity later than the answer did: what was seen before does not stand for what is there now."""
    kernel = numbers()
    state = kernel.new_state()
    kernel.apply(state, START_MS, None, Values(1.0, 2, True))
    features, before, later = Features(), Stored(None, FENCE), Stored(kernel.encode(state), FENCE)
    absent, present = (features.of(kernel, b"a", item, START_MS) for item in (before, later))
    assert repr(present) == repr(serve(kernel.view, kernel.read(later.value or b"", START_MS), START_MS)) != repr(absent)
    assert features.of(kernel, b"a", later, START_MS) is present
