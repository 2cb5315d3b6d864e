"""What a playback waits for: once the fences say it, every record that the events became is folded, whatever they were."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count
from tidemill.declarations.project import Project
from tidemill.kernel.fences import sources
from tidemill.kernel.fold import LogEntry, PartitionFold, entry_decoder
from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import fence_key
from tidemill.operations.expected import Expectations, Placed, lacking
from tidemill.routing.router import Router
from tidemill.streams.topics import dead_letters_topic, view_topic

EVENT = Event("e", {"at": int, "zone": str | None, "driver": int}, time="at", partitions=3)
UNREAD = Event("unread", {"at": int}, time="at")
VIEWS = [
    FeatureView("zones", EVENT, "zone", [count()], partitions=4),
    FeatureView("drivers", EVENT, "driver", [count()], partitions=2),
    FeatureView("some", EVENT, "driver", [count()], partitions=1, where="driver / 2 < 3 and zone != 'b'"),
]
PROJECT = Project("world", {"e": EVENT, "unread": UNREAD}, {view.name: view for view in VIEWS})
EXPECTATIONS = Expectations(PROJECT)
NOW_MS = 1_700_000_000_000

datas = st.fixed_dictionaries(
    {"at": st.integers(NOW_MS - 5, NOW_MS), "driver": st.integers(-3, 9)}, optional={"zone": st.sampled_from(["a", "b", "ü", None])}
)
refused = st.just({"at": "never", "zone": "a", "driver": 1})


def placed(events: list[tuple[int, dict[str, Any]]]) -> list[Placed]:
    """Events in the order of their offsets, which begin anywhere."""
    ends: dict[int, int] = defaultdict(lambda: 7)
    made = []
    for partition, data in events:
        made.append(("e", partition, ends[partition], data))
        ends[partition] += 1
    return made


def routed(events: list[Placed], again: int = 0) -> dict[bytes, list[LogEntry]]:
    """The logs by the keys of their fences, as ingestion fills them when it sends the first `again` events a second time."""
    decoders = {view_topic("world", view.log): (view, entry_decoder(view)) for view in VIEWS}
    router, logs = Router(PROJECT), defaultdict[bytes, list[LogEntry]](list)
    for name, partition, offset, data in [*events[:again], *events]:
        value, headers = msgspec.json.encode(data), [("ce_recordedtime", b"%d" % NOW_MS)]
        for topic, to, key, record in router.route(PROJECT.events[name].topic, partition, offset, NOW_MS, None, value, headers):
            if topic != dead_letters_topic("world"):
                view, decode = decoders[topic]
                log = logs[fence_key("world", view.log, to)]
                log.append(decode(len(log), key, record))
    return logs


def fences(logs: dict[bytes, list[LogEntry]], folded: dict[bytes, int]) -> dict[bytes, bytes | None]:
    """What the store holds once so many records of each log are folded; no fence where nothing is."""
    kernels = {fence_key("world", view.log, p): ViewKernel(view) for view in VIEWS for p in range(view.partitions)}
    found: dict[bytes, bytes | None] = {}
    for key, kernel in kernels.items():
        fold = PartitionFold.start(kernel)
        fold.advance(logs.get(key, [])[: folded.get(key, 0)], {})
        found[key] = fold.fence.encode() if folded.get(key) else None
    return found


@given(st.lists(st.tuples(st.integers(0, 2), datas), max_size=12), st.integers(0, 4))
def test_when_all_is_folded_nothing_is_lacking(events: list[tuple[int, dict[str, Any]]], again: int) -> None:
    """Good events, null keys among them and some sent twice: what is expected comes."""
    made = placed(events)
    logs, expected = routed(made, again), EXPECTATIONS.of(made)
    stored = fences(logs, {key: len(log) for key, log in logs.items()})
    assert lacking(expected, [stored[key] for key in expected]) == {}


@given(st.lists(st.tuples(st.integers(0, 2), datas | refused), max_size=12), st.data())
def test_when_nothing_is_lacking_all_is_folded(events: list[tuple[int, dict[str, Any]]], data: st.DataObject) -> None:
    """However far each log is folded, and whether events were refused: fences that say what is expected have every record below them."""
    made = placed(events)
    logs, expected = routed(made), EXPECTATIONS.of(made)
    folded = {key: data.draw(st.integers(0, len(log))) for key, log in logs.items()}
    stored = fences(logs, folded)
    left = lacking(expected, [stored[key] for key in expected])
    assert all(folded[key] == len(log) for key, log in logs.items() if key not in left)


def test_what_is_lacking_is_asked_for_again() -> None:
    """A fence that has not seen the last event stays expected, one that has is not."""
    made = placed([(0, {"at": NOW_MS, "zone": "a", "driver": 9}), (1, {"at": NOW_MS, "zone": "a", "driver": 9})])
    expected = EXPECTATIONS.of(made)
    assert sorted(expected.values(), key=len) == [{0: 7, 1: 7}, {0: 7, 1: 7}]
    one, other = expected
    logs = routed(made)
    stored = fences(logs, {one: 1, other: 2})
    assert sources(stored[one]) == {0: 7}
    assert lacking(expected, [stored[one], stored[other]]) == {one: {0: 7, 1: 7}}
    assert lacking(expected, [None, None]) == expected
    assert sources(None) == {}


def test_an_event_without_views_is_not_waited_for() -> None:
    """No fence tells of it."""
    assert EXPECTATIONS.of([("unread", 0, 5, {"at": NOW_MS})]) == {}


def test_a_key_that_goes_nowhere_known_is_said() -> None:
    """Ingestion will refuse it; a playback then waits for the positions of Kafka instead."""
    with pytest.raises(TypeError, match="is not an entity"):
        EXPECTATIONS.of([("e", 0, 5, {"at": NOW_MS, "zone": 1.5, "driver": 1})])
