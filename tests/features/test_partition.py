"""A partition as a worker holds it: what it accepts, what it refuses, and that slices and cache leave no trace in the outcome."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregates import count, mean, sum
from tidemill.errors import CorruptState, FenceConflict, Rebuilding, TopicMismatch, TopicRecreated
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.view import ViewKernel
from tidemill.records import ViewRecord, encode
from tidemill_features.partition import Partition, StateCache, _size

PAID = Event("paid", {"at": int, "card": str, "amount": float}, time="at")
VIEW = FeatureView("by_card", PAID, "card", [count(), sum("amount"), mean("amount")], windows=["1h"], dedupe=2, partitions=3)
KERNEL, DECODE = ViewKernel(VIEW), entry_decoder(VIEW)
PLENTY = 1 << 20


class Row(NamedTuple):
    """What a partition needs of a Kafka record."""

    offset: int
    key: bytes
    value: bytes


def row(offset: int, entity: int = 0, minute: int = 0, source: int | None = None, event: int | None = None) -> Row:
    """One event of one entity."""
    position = (0, offset if source is None else source)
    record = ViewRecord(60_000 * minute, 0, position, {"amount": offset / 7}, None if event is None else f"e{event}")
    return Row(offset, b"card-%d" % entity, encode(record))


def fresh(stored: bytes | None = None, number: int = 0, view: FeatureView = VIEW) -> Partition:
    """A partition that begins at a stored fence."""
    return Partition(ViewKernel(view), DECODE, number, stored)


def folded(rows: list[Row]) -> tuple[bytes, dict[bytes, bytes]]:
    """The fence and the values after folding rows in one piece."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, Any]()
    fold.advance([DECODE(*row) for row in rows], states)
    return fold.fence.encode(), {entity: KERNEL.encode(state) for entity, state in states.items()}


rows_drawn = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 200), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 20))), min_size=1, max_size=60
).map(lambda drawn: [row(offset, *fields) for offset, fields in enumerate(drawn)])


@given(rows_drawn, st.data())
def test_neither_cuts_nor_cache_nor_restarts_matter(rows: list[Row], data: st.DataObject) -> None:
    """Cut into any slices, with any cache, begun anew at any time, the store ends as if all were folded in one piece."""
    store: dict[bytes, bytes] = {}
    fence = fresh().stored
    cache_bytes = data.draw(st.sampled_from([1, 3_000, PLENTY]))
    partition = Partition(KERNEL, DECODE, 0, None)
    start = 0
    while start < len(rows):
        end = data.draw(st.integers(start + 1, len(rows)))
        entries = partition.accept(start, rows[start:end])
        missing = partition.missing(entries)
        partition.admit(fence, {entity: store[entity] for entity in missing if entity in store})
        batch = partition.advance(entries)
        assert partition.stored == fence
        fence, start = batch.fence, end
        store |= {entity: value for entity, value in batch.values.items() if isinstance(value, bytes)}  # all of them are short
        partition.applied(batch, cache_bytes)
        if data.draw(st.booleans()):
            partition = Partition(KERNEL, DECODE, 0, fence)
    assert (fence, store) == folded(rows)


def test_only_changed_entities_are_written() -> None:
    """A batch holds the entities its events changed, and none that only saw a duplicate."""
    partition = fresh()
    entries = partition.accept(0, [row(0, 1, event=1), row(1, 2, event=2)])
    partition.applied(partition.advance(entries), PLENTY)
    batch = partition.advance(partition.accept(2, [row(2, 1, event=1), row(3, 2, event=3)]))
    assert list(batch.values) == [b"card-2"]
    assert (batch.progress.folded, batch.after.duplicates - batch.before.duplicates) == (1, 1)


def test_entities_that_are_cached_are_not_loaded() -> None:
    """Only entities not seen before are missing; a record that cannot be used asks for none."""
    partition = fresh()
    entries = partition.accept(0, [row(0, 1), Row(1, b"card-9", b"{")])
    assert partition.missing(entries) == [b"card-1"]
    partition.applied(partition.advance(entries), PLENTY)
    assert partition.missing(partition.accept(2, [row(2, 1), row(3, 2)])) == [b"card-2"]


@pytest.mark.parametrize("start", [0, 1, 2, 4, 9])
def test_a_slice_that_does_not_follow(start: int) -> None:
    """A slice from elsewhere than the fence, or the record before it, is refused and changes nothing."""
    fence, _ = folded([row(i) for i in range(4)])
    partition = fresh(fence)
    if start == 4:
        assert [entry.offset for entry in partition.accept(4, [row(4)])] == [4]
    else:
        with pytest.raises(FenceConflict, match="by_card"):
            partition.accept(start, [row(start)])


def test_the_record_before_the_fence_proves_the_topic() -> None:
    """Reading begins one record early; that record is not folded again, and another one in its place is refused."""
    fence, _ = folded([row(i) for i in range(4)])
    assert [entry.offset for entry in started(fence).accept(3, [row(3), row(4)])] == [4]
    with pytest.raises(TopicRecreated, match="the record at offset 3 is not the one"):
        started(fence).accept(3, [row(3, entity=5), row(4)])


def test_the_proof_must_have_come() -> None:
    """When the first slice is lost, one that begins right at the fence is refused: nothing has proved the topic yet."""
    fence, _ = folded([row(i) for i in range(4)])
    with pytest.raises(FenceConflict):
        started(fence).accept(4, [row(4)])
    partition = started(fence)
    assert partition.accept(3, [row(3)]) == []
    assert [entry.offset for entry in partition.accept(4, [row(4)])] == [4]


def started(fence: bytes) -> Partition:
    """A partition whose reading begins one record before the fence at 4."""
    partition = fresh(fence)
    assert partition.start(range(10)) == 3
    return partition


@pytest.mark.parametrize(
    ("log", "start", "refusal"),
    [
        (range(4), 3, None),
        (range(3, 9), 3, None),
        (range(4, 9), 4, None),  # retention took the record that would prove the topic, but nothing that is needed
        (range(3), 0, "ends at offset 3"),
        (range(5, 9), 0, "begins at offset 5"),
    ],
)
def test_what_the_topic_must_hold(log: range, start: int, refusal: str | None) -> None:
    """The topic must reach from the fence, or before it, to the fence, or beyond it."""
    partition = fresh(folded([row(i) for i in range(4)])[0])
    if refusal is None:
        assert partition.start(log) == start
    else:
        with pytest.raises(TopicRecreated, match=refusal):
            partition.start(log)


def test_an_empty_store_needs_the_whole_topic() -> None:
    """Without a fence reading begins at offset 0, and a topic that has lost its beginning is refused."""
    assert fresh().start(range(0)) == 0
    with pytest.raises(TopicRecreated, match="begins at offset 1"):
        fresh().start(range(1, 5))


def test_entities_of_another_fence() -> None:
    """What was read together with another fence is not taken in."""
    fence, values = folded([row(i) for i in range(4)])
    with pytest.raises(FenceConflict) as conflict:
        fresh(fence).admit(folded([row(0)])[0], values)
    assert (conflict.value.expected, conflict.value.found) == (4, 1)
    with pytest.raises(FenceConflict):
        fresh(fence).admit(None, values)
    with pytest.raises(FenceConflict):
        fresh(fence).admit(b"rubbish", values)


def test_without_a_fence_it_is_rebuilt_up_to_the_end_of_the_log() -> None:
    """The first fence has where the log ended then; it keeps it until that is passed, and then there is no trace of it."""
    rows = [row(i) for i in range(6)]
    partition = Partition(KERNEL, DECODE, 0, None, log_end=5)
    assert Fence.decode(partition.stored).until == 5
    for start, end, until in ((0, 2, 5), (2, 4, 5), (4, 6, 0)):
        batch = partition.advance(partition.accept(start, rows[start:end]))
        assert batch.after.until == until
        partition.applied(batch, PLENTY)
        partition = Partition(KERNEL, DECODE, 0, partition.stored, log_end=99)
    assert partition.stored == folded(rows)[0]
    assert Fence.decode(Partition(KERNEL, DECODE, 0, None, log_end=0).stored).until == 0


def test_a_partition_that_somebody_rebuilds_is_left_alone() -> None:
    """While a builder's fence lies there no worker begins."""
    fence = msgspec.structs.replace(Fence.decode(fresh().stored), builder="b", until=9)
    with pytest.raises(Rebuilding, match="by_card"):
        fresh(fence.encode())


def test_a_damaged_entity_is_named() -> None:
    """A value that fails its checksum is refused with partition and entity."""
    fence, values = folded([row(0, 3)])
    damaged = bytearray(values[b"card-3"])
    damaged[-1] ^= 1
    with pytest.raises(CorruptState, match=r"'by_card' partition 2, entity b'card-3'.*checksum.*rebuild by_card --partition 2"):
        fresh(fence, number=2).admit(fence, {b"card-3": bytes(damaged)})


def test_a_store_filled_otherwise() -> None:
    """A store filled by another definition, with another partition count, or by nobody knows what, is refused with the mend."""
    fence = Fence.decode(folded([row(0)])[0])
    changed = FeatureView("by_card", PAID, "card", [count()], windows=["1h"], partitions=3)
    with pytest.raises(TopicMismatch, match=r"'by_card' partition 0.*another definition.*new name"):
        fresh(fence.encode(), view=changed)
    with pytest.raises(TopicMismatch, match="filled with 7 partitions, 3 are declared"):
        fresh(msgspec.structs.replace(fence, partitions=7).encode())
    with pytest.raises(TopicMismatch, match="more than the 3 partitions"):
        fresh(number=3)
    with pytest.raises(CorruptState, match="the stored fence cannot be read"):
        fresh(b"{")


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=30), st.integers(1, 9_000))
def test_the_cache_keeps_its_limit(used: list[tuple[int, int]], limit: int) -> None:
    """The cache stays below its limit, drops the least recently used first, and gives back what it was given, short or long."""
    kernel = ViewKernel(FeatureView("weekly", PAID, "card", [count(), sum("amount")], windows=["7d"]))
    cache, last, order = StateCache(kernel), dict[bytes, bytes](), list[bytes]()
    for number, days in used:
        entity = b"%d" % number
        was_here = entity in cache.kept
        state = cache.take(entity)
        assert (state is not None) == was_here
        if state is None:
            state = kernel.new_state()
        else:
            assert kernel.encode(state) == last[entity]
        for hour in range(24 * days):  # a tile each: values of many are changed in place
            kernel.apply(state, 3_600_000 * hour, None, Amount(1.5))
        cache.put(entity, state, kernel.write(state))
        last[entity] = kernel.encode(state)
        cache.trim(limit)
        order = [*(other for other in order if other != entity), entity]
        assert list(cache.kept) == order[len(order) - len(cache.kept) :]
        assert cache._bytes == sum_of(_size(kept) for kept in cache.kept.values()) <= limit


class Amount(NamedTuple):
    """What the view folds of an event."""

    amount: float


def sum_of(sizes: Iterable[int]) -> int:
    """The sum of all sizes (`sum` is an aggregate here)."""
    total = 0
    for size in sizes:
        total += size
    return total
