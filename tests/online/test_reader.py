"""Reading entities and fences: what is read together was written together."""

import asyncio
import json

import pytest
from msgspec.structs import replace
from tests.demo_state import NOW_MS, Store, demo, trip

from tidemill.errors import CorruptState, StoreUnavailable
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.names import log_name
from tidemill.online.keys import fence_key, state_key
from tidemill.online.reader import OnlineReader, Stored, stamp_of
from tidemill.online.writer import OnlineWriter
from tidemill.records import StampEntry, ViewRecord, encode
from tidemill.redis.link import RedisLink

pytestmark = pytest.mark.integration
KERNELS = {name: ViewKernel(view) for name, view in demo().views.items()}
ZONES = demo().views["zones"]


async def test_each_pair_gets_its_value_and_its_fence(redis_url: str, store: Store) -> None:
    """Known and unknown entities, twice the same, of two views: values in order, each with the fence of its partition."""
    store.apply([trip(NOW_MS, "north", driver=1), trip(NOW_MS, "south", driver=2)])
    pairs = [("zones", b"north"), ("drivers", b"1"), ("zones", b"nowhere"), ("zones", b"north")]
    async with RedisLink(redis_url) as link:
        found = await OnlineReader(link, "demo", KERNELS).read(pairs)
        assert await OnlineReader(link, "demo", KERNELS).read([]) == []
    for (view, key), stored in zip(pairs, found, strict=True):
        partition = partition_of(key, 4)
        fold, states = store.folds.get((view, partition)), store.states.get((view, partition), {})
        assert stored.value == (KERNELS[view].encode(states[key]) if key in states else None)
        assert stored.fence == StampEntry(KERNELS[view].view.log, partition, fold.fence.next if fold else 0)
    assert found[0] == found[3]
    assert len(stamp_of(found)) == len({stored.fence for stored in found})


async def test_what_is_being_rebuilt_is_not_given(redis_url: str, store: Store) -> None:
    """Below `until` and without a fence there is the position and no value; from `until` on all is as ever."""
    store.apply([trip(NOW_MS, "north"), trip(NOW_MS, "north")])
    view, partition = demo().views["zones"], partition_of(b"north", 4)
    key = fence_key("demo", view.log, partition)
    fence, value = Fence.decode(store.get(key)), store.get(state_key("demo", view.log, partition, b"north"))
    async with RedisLink(redis_url) as link:
        reader = OnlineReader(link, "demo", KERNELS)
        for stored, expected in (
            (fence, Stored(value, StampEntry(view.log, partition, 2))),
            (replace(fence, until=2), Stored(value, StampEntry(view.log, partition, 2))),
            (replace(fence, until=3), Stored(None, StampEntry(view.log, partition, 2), rebuilding=True)),
            (replace(fence, next=0, until=3, builder="b"), Stored(None, StampEntry(view.log, partition, 0), rebuilding=True)),
        ):
            store.client.set(key, stored.encode())
            assert await reader.read([("zones", b"north")]) == [expected]
        store.client.delete(key)
        assert await reader.read([("zones", b"north")]) == [Stored(None, StampEntry(view.log, partition, 0), rebuilding=True)]


def test_a_stamp_has_each_fence_once() -> None:
    """Entities of one partition share its fence."""
    one, two = StampEntry(log_name("v", 2), 0, 5), StampEntry(log_name("v", 2), 1, 7)
    assert stamp_of([Stored(b"", one), Stored(None, two), Stored(b"", one)]) == [one, two]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"definition": "other"}, StoreUnavailable, "definition other"),
        ({"partitions": 8}, StoreUnavailable, "8 partitions"),
        ({"next": "x"}, CorruptState, "cannot be read"),
    ],
)
async def test_a_fence_that_does_not_fit_is_refused(
    redis_url: str, store: Store, change: dict[str, object], error: type[Exception], text: str
) -> None:
    """State of another definition or partitioning is not read, since its tiles mean something else."""
    store.apply([trip(NOW_MS, "north")])
    key = fence_key("demo", ZONES.log, partition_of(b"north", 4))
    store.client.set(key, json.dumps(json.loads(store.get(key)) | change))
    async with RedisLink(redis_url) as link:
        with pytest.raises(error, match=text):
            await OnlineReader(link, "demo", KERNELS).read([("zones", b"north")])


async def test_reads_are_never_torn(redis_url: str) -> None:
    """Against the real script writing as fast as it can, the value read is always exactly the fold of the log below the fence read."""
    kernel, partition = KERNELS["zones"], partition_of(b"north", 4)
    fold, states, decode = PartitionFold.start(kernel), dict[bytes, EntityState](), entry_decoder(ZONES)
    after: dict[int, bytes] = {}
    seen = set()
    stop = asyncio.Event()

    async def write(link: RedisLink) -> None:
        writer, stored = OnlineWriter(link, "demo"), None
        while not stop.is_set():
            record = encode(ViewRecord(NOW_MS, NOW_MS, (0, fold.fence.next), {"fare": 1.0, "tip": None}))
            fold.advance([decode(fold.fence.next, b"north", record)], states)
            value, fence = kernel.encode(states[b"north"]), fold.fence.encode()
            after[fold.fence.next] = value
            assert await writer.apply(ZONES.log, partition, stored, fence, {b"north": value})
            stored = fence

    async with RedisLink(redis_url) as writing, RedisLink(redis_url) as reading:
        task = asyncio.create_task(write(writing))
        reader = OnlineReader(reading, "demo", KERNELS)
        for _ in range(2_000):
            (stored,) = await reader.read([("zones", b"north")])
            assert stored.value == after.get(stored.fence.next)
            seen.add(stored.fence.next)
        stop.set()
        await task
    assert len(seen) > 20
