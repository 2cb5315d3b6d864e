"""The checks can fail: every way in which a store, a log or a table may be wrong is reported, and what is right is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from tests.faults.logcheck import PartitionCheck, missing
from tests.faults.logs import EVENTS, NOW_MS, checks, events, records, world
from tests.faults.served import Answer, compare
from tests.faults.tables import TableCheck
from tests.faults.tally import Tally
from tests.offline.lake import Sent
from tests.proof.world import World

from tidemill.kernel.fences import Fence
from tidemill.offline.names import view_folder
from tidemill.streams.topics import view_topic
from tidemill.typed_values import view_decoder

VIEWS = ("entities", "places")
Value = Callable[[World, PartitionCheck], dict[bytes, bytes | None]]


def stored(made: World, check: PartitionCheck, end: int | None = None) -> tuple[Fence, dict[bytes, bytes | None]]:
    """What a worker that has applied the log below an offset has put into the store."""
    fold, states = made.fold(check.view, check.partition, end)
    return fold.fence, {key: check.kernel.encode(state) for key, state in states.items()}


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A log of some events."""
    return world(tmp_path, events(1))


@pytest.mark.parametrize("view", VIEWS)
def test_a_store_that_is_right(made: World, view: str) -> None:
    """Nothing is found in a store that was folded from the log, at whichever fence; both folds agree on it."""
    tally, compared = Tally(), 0
    for check in checks(made, view, tally):
        half = PartitionCheck(check.view, check.kernel, check.partition, tally)
        half.advance(records(made, check.view, check.partition)[: check.next // 2])
        for one in (check, half):
            fence, values = stored(made, one, one.next)
            one.judge(fence, values, naively=100)
            compared += len(values)
    assert tally.findings == []
    assert compared > 5


def changed_bit(_made: World, check: PartitionCheck, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """One bit of one value."""
    key, value = next(iter(values.items()))
    assert value is not None
    return values | {key: value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]}


def gone(_made: World, _check: PartitionCheck, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """One entity is missing."""
    return values | {next(iter(values)): None}


def too_many(_made: World, _check: PartitionCheck, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """An entity the log does not know."""
    return values | {b"nobody": next(iter(values.values()))}


def older(made: World, check: PartitionCheck, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """A value of another moment than the fence: a torn read, or a store that lost some of its keys."""
    before = stored(made, check, check.next // 2)[1]
    key = next(key for key, value in before.items() if value != values[key])
    return values | {key: before[key]}


def twice(made: World, check: PartitionCheck, values: dict[bytes, bytes | None]) -> dict[bytes, bytes | None]:
    """The last record was applied twice."""
    last = records(made, check.view, check.partition)[-1]
    assert last.key is not None
    assert last.value is not None
    value = values[last.key]
    assert value is not None
    state = check.kernel.decode(value)
    record = view_decoder({name: check.view.source.fields[name] for name in check.view.value_fields}).decode(last.value)
    check.kernel.apply(state, state.newest, "another id", record.values)
    return values | {last.key: check.kernel.encode(state)}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("tamper", [changed_bit, gone, too_many, older, twice], ids=lambda tamper: str(tamper.__name__))
def test_a_store_that_is_wrong(made: World, view: str, tamper: Callable[..., dict[bytes, bytes | None]]) -> None:
    """A single value that is not what the log gives is found."""
    tally = Tally()
    check = checks(made, view, tally)[0]
    fence, values = stored(made, check)
    check.judge(fence, tamper(made, check, values))
    assert tally.counts["different"] == 1, tally.findings


@pytest.mark.parametrize("field", ["next", "proof", "resent", "duplicates", "late", "poison"])
def test_a_fence_that_is_wrong(made: World, field: str) -> None:
    """Every number of a fence is compared."""
    tally = Tally()
    check = checks(made, "places", tally)[0]
    fence, values = stored(made, check)
    check.judge(msgspec.structs.replace(fence, **{field: getattr(fence, field) + 1}), values)
    assert tally.counts["different"] == 1


def test_features_that_are_served(made: World) -> None:
    """An answer that is what the log gives is right; one with another number, or none, is not."""
    tally = Tally()
    check = checks(made, "places", tally)[0]
    key, names = check.entities[0], [feature.name for feature in check.view.served]
    time_ms = NOW_MS + 4_000 * EVENTS
    reading = check.reading(key, time_ms)
    assert reading is not None
    shown: dict[str, float | None] = {name: None if math.isnan(x) else x for name, x in zip(names, reading.values, strict=True)}
    compare(check, Answer(time_ms, {key: shown, b"nobody": dict.fromkeys(names, None)}))
    assert tally.findings == []
    number = shown["count_10m"]
    assert number is not None
    compare(check, Answer(time_ms, {key: shown | {"count_10m": number + 1}}))
    compare(check, Answer(time_ms, {key: shown | {"count_10m": None}}))
    assert tally.counts["different"] == 2


def test_events_lost_on_the_way(made: World) -> None:
    """A number that was acknowledged and is in no partition is lost, unless it was spoiled."""
    for view in VIEWS:
        found = checks(made, view, Tally())
        assert missing(found, {0: (EVENTS, set())}) == []
        assert missing(found, {0: (EVENTS + 2, {EVENTS})}) == [f"0-{EVENTS + 1}"]
        assert missing(found, {0: (EVENTS, set()), 1: (1, set())}) == ["1-0"]


def test_events_that_come_twice(tmp_path: Path) -> None:
    """An event that is folded again, since its id was forgotten, is doubled; one whose id is known, or that came too late anyway, is not."""
    happened = events(2)
    newest = [at for at in happened if at[2]["at"] == at[0]]
    tally = Tally()
    checks(world(tmp_path / "soon", [*happened, newest[-1]]), "entities", tally)
    assert tally.counts["doubled"] == 0
    again = (NOW_MS + 10**7, happened[0][1], {**happened[0][2], "at": NOW_MS + 10**7})
    filling = [(NOW_MS + 10**7, "fault.measured", {**again[2], "id": f"0-{EVENTS + i}"}) for i in range(70)]
    checks(world(tmp_path / "late", [*happened, *filling, again]), "entities", tally)
    assert tally.counts["doubled"] == 1


def test_a_hole_in_a_topic(made: World) -> None:
    """Offsets that leave one out are reported."""
    tally = Tally()
    view = made.project.views["places"]
    check = PartitionCheck(view, checks(made, "places", tally)[0].kernel, 0, tally)
    found = records(made, view, 0)
    check.advance([*found[:5], *found[6:]])
    assert tally.counts["different"] == 1


@pytest.mark.parametrize("wrong", [None, "swapped", "after a live one"])
def test_archived_events_come_first_and_in_order(made: World, wrong: str | None) -> None:
    """A log that was filled begins with archived events, as they became known; any other order is told."""
    tally, view = Tally(), made.project.views["places"]
    check = PartitionCheck(view, checks(made, "places", tally)[0].kernel, 0, tally)
    found = [msgspec.json.decode(sent.value or b"") | {"key": sent.key} for sent in records(made, view, 0)[:20]]
    archived = [record | {"source": [2**33, number]} for number, record in enumerate(found)]
    match wrong:
        case "swapped":
            archived[3]["known"], archived[4]["known"] = archived[4]["known"], archived[3]["known"]
        case "after a live one":
            archived[3]["source"] = [0, 7]
    check.advance([Sent(number, record.pop("key"), msgspec.json.encode(record)) for number, record in enumerate(archived)])
    assert (tally.counts["different"] > 0) is (wrong is not None)


def table(made: World, tally: Tally, view: str = "places") -> TableCheck:
    """The check of an offline table."""
    return TableCheck(made.project.views[view], checks(made, view, tally), made.store)


def test_an_offline_table_that_is_right(made: World) -> None:
    """Rows are compared once while the table grows, and all of them in the end."""
    tally, view = Tally(), made.project.views["places"]
    check = table(made, tally)
    total = sum(len(records(made, view, p)) for p in range(view.partitions))
    assert check.compare() == 0
    made.write({(view_topic(made.project.name, view.log), p): len(records(made, view, p)) // 2 for p in range(view.partitions)})
    first = check.compare()
    made.write()
    assert 0 < first < total
    assert first + check.compare() == total
    assert check.compare(whole=True) == total
    assert tally.findings == []


@pytest.mark.parametrize("what", ["doubled", "lost", "changed", "short"])
def test_an_offline_table_that_is_wrong(made: World, what: str) -> None:
    """A row too many, too few or changed is found, and so is a table that ends early."""
    tally, view = Tally(), made.project.views["places"]
    check = table(made, tally)
    topic, log = view_topic(made.project.name, view.log), made.logs
    rows = list(log[topic, 0])
    match what:
        case "doubled":
            log[topic, 0] = [*rows[:9], rows[8], *rows[9:]]
        case "lost":
            log[topic, 0] = [*rows[:9], *rows[10:]]
        case "changed":
            key, value = rows[9]
            assert value is not None
            log[topic, 0] = [*rows[:9], (key, value.replace(b'"known":1', b'"known":2')), *rows[10:]]
        case "short":
            log[topic, 0] = rows[:-1]
    made.write()
    check.compare(whole=True)
    assert sum(tally.counts.values()) > 0, what


@pytest.mark.parametrize("lost", [0, 1], ids=["one more", "as many"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_table_whose_rows_are_doubled_behind_its_counter(made: World, lost: int, *, whole: bool) -> None:
    """Rows that a table has twice are found although its counter is right, also when as many others are gone."""
    made.write()
    tally = Tally()
    check = table(made, tally)
    view = made.project.views["places"]
    rows = pa.table(made.store.snapshot(view_folder(view.log)).scan())
    write_deltalake(made.store.uri(view_folder(view.log)), pa.concat_tables([rows.slice(lost), rows.slice(9, 1)]), mode="overwrite")
    check.compare(whole=whole)
    assert tally.counts["different"] > 0
