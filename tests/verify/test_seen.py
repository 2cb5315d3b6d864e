"""Which events a store had seen, and in which order: from its fence, the rows of the view and the archive."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
from tests.verify.archive import Raw, archived

import tidemill as tm
from tidemill.archive.view_records import FILL
from tidemill.declarations import Event, FeatureView
from tidemill.verify.seen import FILLED, Absent, Reached, Seen, seen_events
from tidemill.verify.sql import POSITION, AskedMoment, SqlView

T0 = 1_700_000_000_000
SOLD = Event("sold", {"at": int, "shop": str, "x": float | None}, time="at", partitions=2)
SHOPS = FeatureView("shops", SOLD, "shop", [tm.count(), tm.last("x")], windows=["1h"])
AHEAD = FeatureView("ahead", SOLD, "shop", [tm.count()], windows=["1h"], ahead="1h")
HOUR = 3_600_000
NOTHING = Absent()


class Row(NamedTuple):
    """A record of the view's log: where its event lies, and when it became known and happened."""

    source: tuple[int, int]
    known_ms: int
    time_ms: int
    key: str = "n"
    id: str | None = None


def event(partition: int, offset: int, known_ms: int, time_ms: int | None = None, *, topic: str = "sold", shop: str = "n") -> Raw:
    """An archived event; x is its offset."""
    time_ms = known_ms if time_ms is None else time_ms
    return Raw(topic, partition, offset, T0 + known_ms, T0 + time_ms, None, {"at": T0 + time_ms, "shop": shop, "x": float(offset)})


def log(*rows: Row) -> pa.Table:
    """The rows of a view's partition, from offset 0 on."""
    columns: dict[str, list[Any]] = {
        "offset": list(range(len(rows))),
        "key": [row.key for row in rows],
        "source_partition": [row.source[0] for row in rows],
        "source_offset": [row.source[1] for row in rows],
        "known": [T0 + row.known_ms for row in rows],
        "time": [T0 + row.time_ms for row in rows],
    }
    return pa.table(columns | {"id": pa.array([row.id for row in rows], pa.string())})


def seen(events: list[Raw], rows: pa.Table, absent: Absent = NOTHING, view: FeatureView = SHOPS, **reached: Any) -> Seen:
    """What a store has seen that is at the end of the rows."""
    sources = dict(zip(rows["source_partition"].to_pylist(), rows["source_offset"].to_pylist(), strict=True))
    return seen_events(view, archived(SOLD, events), rows, Reached(len(rows), **{"sources": sources, **reached}), absent)


def positions(found: Seen) -> dict[tuple[str, int, int], int]:
    """Where the records of the events lie, by the place of the event."""
    columns = [found.events[name].to_pylist() for name in ("_topic", "_partition", "_offset", POSITION)]
    return {(topic, partition, offset): position for topic, partition, offset, position in zip(*columns, strict=True)}


def test_events_have_the_order_of_the_log() -> None:
    """After an outage a whole partition is folded before the other, and what lies too far back by then does not count."""
    events = [event(0, 0, 0), event(1, 0, 1), event(0, 1, 4 * HOUR)]
    found = seen(events, log(Row((0, 0), 0, 0), Row((0, 1), 4 * HOUR, 4 * HOUR), Row((1, 0), 1, 1)))
    assert positions(found) == {("sold", 0, 0): 0, ("sold", 0, 1): 1, ("sold", 1, 0): 2}
    sql = SqlView(SHOPS, found.events, threads=1)
    (now, before) = sql.answers([AskedMoment("n", T0 + 4 * HOUR, 3), AskedMoment("n", T0 + 10, 1)])
    by_known = SqlView(SHOPS, archived(SOLD, events), threads=1)
    (otherwise,) = by_known.answers([AskedMoment("n", T0 + 4 * HOUR)])
    assert [one.features["last_x"].value for one in (now, before, otherwise)] == [1.0, 0.0, 1.0]
    assert [event["counts"] for event in sql.events(AskedMoment("n", T0, 3), 9)] == [True, True, False]
    assert [event["counts"] for event in by_known.events(AskedMoment("n", T0), 9)] == [True, True, True]


def test_what_lies_above_the_fence_was_not_seen() -> None:
    """Events that are archived and not folded yet are left out; a record sent twice counts where it lay first."""
    events = [event(0, 0, 0), event(0, 1, 1), event(1, 5, 2)]
    found = seen(events, log(Row((0, 0), 0, 0), Row((0, 1), 1, 1), Row((0, 0), 0, 0)), sources={0: 1})
    assert positions(found) == {("sold", 0, 0): 0, ("sold", 0, 1): 1}
    assert (found.gone, found.strange) == ({}, [])


def test_events_without_a_record_and_records_without_an_event() -> None:
    """Below the fence an event must have been seen: it counts where it belongs, and is named. So is a record that no event explains."""
    events = [event(0, 0, 0), event(0, 1, 1), event(0, 2, 2)]
    found = seen(events, log(Row((0, 0), 0, 0), Row((0, 2), 2, 2), Row((0, 3), 3, 3)))
    assert positions(found) == {("sold", 0, 0): 0, ("sold", 0, 1): 0, ("sold", 0, 2): 1}
    assert found.strange == [
        "no record of the event sold[0] at 1, known 2023-11-14T22:13:20.001Z",
        "no event of the record at 2 of the log, known 2023-11-14T22:13:20.003Z",
    ]
    elsewhere = seen([event(0, 0, 0, shop="other")], log(Row((0, 0), 0, 0)))
    assert len(elsewhere.strange) == 2


def test_events_that_a_version_was_filled_with() -> None:
    """Their records have no place; alike ones are told apart by their number. What was loaded afterwards the version never got."""
    assert FILLED == FILL
    events = [
        event(0, 0, 5),
        event(0, 1, 5),
        event(0, 2, 9),
        event(0, 3, 10),
        event(0, 0, 1, topic="load:a"),
        event(0, 0, 2, topic="load:b"),
    ]
    rows = log(Row((FILL, 0), 1, 1), Row((FILL, 1), 5, 5), Row((FILL, 2), 5, 5), Row((0, 3), 10, 10))
    found = seen(events, rows, begins={0: 3})
    assert positions(found) == {("load:a", 0, 0): 0, ("sold", 0, 0): 1, ("sold", 0, 1): 2, ("sold", 0, 2): 2, ("sold", 0, 3): 3}
    assert found.strange == ["no record of the event sold[0] at 2, known 2023-11-14T22:13:20.009Z"]  # the fill lost it


def test_a_log_that_began_later() -> None:
    """It lacks what was routed before; nothing is known of the moment itself."""
    events = [event(0, 0, 0), event(0, 1, 60_000), event(0, 2, 90_000)]
    found = seen(events, log(Row((0, 2), 90_000, 90_000)), since_ms=T0 + 55_000)
    assert positions(found) == {("sold", 0, 2): 0}
    assert found.strange == []


def test_what_is_too_far_ahead_has_no_record() -> None:
    """A view that takes events up to an hour ahead does not miss one that lies further ahead."""
    found = seen([event(0, 0, 0, 2 * HOUR), event(0, 1, 1)], log(Row((0, 1), 1, 1)), view=AHEAD)
    assert (positions(found), found.strange) == ({("sold", 0, 1): 0}, [])


def test_what_does_not_feed_the_view_has_no_record() -> None:
    """Neither an event for which `where` is false, nor one for which it is null; one for which it is true is missed."""
    some = FeatureView("some", SOLD, "shop", [tm.count()], where="x != 1")
    unknown = event(0, 3, 3)._replace(data={"at": T0, "shop": "n", "x": None})
    found = seen([event(0, 0, 0), event(0, 1, 1), event(0, 2, 2), unknown], log(Row((0, 0), 0, 0)), view=some, sources={0: 3})
    assert positions(found) == {("sold", 0, 0): 0, ("sold", 0, 2): 0}
    assert found.strange == ["no record of the event sold[0] at 2, known 2023-11-14T22:13:20.002Z"]


def test_what_the_archive_rightly_lacks() -> None:
    """Entities of which an event was erased or is older than the archive keeps them cannot be computed; a filled record has no place to tell."""
    rows = log(Row((0, 0), 0, 0), Row((0, 1), 1, 1, "m"), Row((FILL, 7), 50, 50, "o"))
    found = seen([], rows, Absent(T0 + 1, {("sold", 0, 1)}))
    assert (found.gone, found.strange) == ({"n": "forgotten", "m": "erased", "o": "erased"}, [])
    assert len(seen([], rows).strange) == 3
