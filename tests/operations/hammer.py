"""A reader that never stops: everything it was served is compared, afterwards, with the fold of the log below the fence it came with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import TopicPartition
from tests.operations.conftest import Mirrored

from tidemill.errors import StoreUnavailable
from tidemill.kafka.client import consumer
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.online.reader import OnlineReader
from tidemill.redis.link import RedisLink
from tidemill.streams.topics import view_topic

PAIRS = [("by_card", b"card-%d" % i) for i in range(0, 300, 7)] + [("by_shop", b"shop-%d" % i) for i in range(0, 40, 3)]


@dataclass
class Hammer:
    """What was served: (view, entity, position) -> value. `withheld`: reads that said "rebuilding"; `backwards`: positions that fell."""

    served: dict[tuple[str, bytes, int], bytes | None] = field(default_factory=dict)
    withheld: int = 0
    backwards: list[tuple[str, int, int]] = field(default_factory=list)
    differing: list[tuple[str, bytes, int]] = field(default_factory=list)
    newest: dict[tuple[str, int], int] = field(default_factory=dict)

    async def read(self, reader: OnlineReader) -> None:
        """One read of all pairs."""
        for (view, entity), stored in zip(PAIRS, await reader.read(PAIRS), strict=True):
            if stored.rebuilding:
                assert stored.value is None
                self.withheld += 1
                continue
            _, partition, position = stored.fence.view, stored.fence.partition, stored.fence.next
            if position < self.newest.get((view, partition), 0):
                self.backwards.append((view, partition, position))
            self.newest[view, partition] = position
            if self.served.setdefault((view, entity, position), stored.value) != stored.value:
                self.differing.append((view, entity, position))

    async def check(self, rig: Mirrored) -> None:
        """Every value served is that of the log below its position, and positions never fell."""
        assert not self.backwards
        assert not self.differing
        for view in rig.project.views.values():
            for partition in range(view.partitions):
                await self._check(rig, view.name, partition)

    async def _check(self, rig: Mirrored, name: str, partition: int) -> None:
        view = rig.project.views[name]
        kernel, decode = ViewKernel(view), entry_decoder(view)
        fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
        wanted = {(entity, position): value for (of, entity, position), value in self.served.items() if of == name}
        reader, tp = consumer(rig.settings), TopicPartition(view_topic(rig.name, view.log), partition)
        await reader.start()
        reader.assign([tp])
        reader.seek(tp, 0)
        end = (await reader.end_offsets([tp]))[tp]
        by_position: dict[int, list[bytes]] = {}
        for entity, position in wanted:
            if rig.partition(name, entity) == partition:
                by_position.setdefault(position, []).append(entity)
        while True:
            for entity in by_position.pop(fold.fence.next, []):
                state = states.get(entity)
                assert wanted[entity, fold.fence.next] == (None if state is None else kernel.encode(state)), (name, entity, fold.fence.next)
            if fold.fence.next == end:
                break
            for records in (await reader.getmany(timeout_ms=1000, max_records=1)).values():
                fold.advance([decode(record.offset, record.key, record.value) for record in records], states)
        await reader.stop()
        assert not by_position


@asynccontextmanager
async def hammering(rig: Mirrored) -> AsyncIterator[Hammer]:
    """Reads as fast as it can as long as the block lasts."""
    hammer, stop = Hammer(), asyncio.Event()

    async def run() -> None:
        async with RedisLink(rig.redis_url, timeout_seconds=5) as link:
            reader = OnlineReader(link, rig.name, {name: ViewKernel(view) for name, view in rig.project.views.items()})
            while not stop.is_set():
                try:
                    await hammer.read(reader)
                except StoreUnavailable:
                    await asyncio.sleep(0.05)

    task = asyncio.create_task(run())
    try:
        yield hammer
    finally:
        stop.set()
        await task
