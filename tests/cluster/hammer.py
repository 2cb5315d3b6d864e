"""Writers and readers that do not stop while a cluster changes: each knows, for every fence, what must be stored."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from tests.demo_state import NOW_MS, demo

from tidemill.errors import SlotUnavailable, StoreUnavailable
from tidemill.kernel.fences import position
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import fence_key, state_key
from tidemill.online.reader import OnlineReader
from tidemill.online.writer import OnlineWriter
from tidemill.records import ViewRecord, encode
from tidemill.redis.cluster import slot_of
from tidemill.redis.protocol import RedisClient

VIEW = demo().views["zones"]
KERNEL = ViewKernel(VIEW)


class Log:
    """The log of one partition, folded: `states[n]` is every entity below fence `n`, `touched[n]` what the record at offset n changes.

    A new entity comes with every record until there are `first`, then with one in `every` (0: none).
    """

    def __init__(self, partition: int, records: int = 3_000, first: int = 20, every: int = 0) -> None:
        self.partition = partition
        self.place = VIEW.log, partition
        self.entities: list[bytes] = []
        self.fences: list[bytes | None] = [None]
        self.states: list[dict[bytes, bytes]] = [{}]
        self.touched: list[dict[bytes, bytes]] = []
        fold, states, decode = PartitionFold.start(KERNEL), dict[bytes, EntityState](), entry_decoder(VIEW)
        names = (name for name in (b"zone-%d" % i for i in count()) if partition_of(name, VIEW.partitions) == partition)
        draw = random.Random(partition)
        for offset in range(records):
            if len(self.entities) < first or (every and offset % every == 0):
                self.entities.append(next(names))
                entity = self.entities[-1]
            else:
                entity = draw.choice(self.entities)
            record = encode(ViewRecord(NOW_MS + offset, NOW_MS, (0, offset + 1), {"fare": draw.gauss(10, 3), "tip": None}))
            fold.advance([decode(offset, entity, record)], states)
            self.touched.append({entity: KERNEL.encode(states[entity])})
            self.states.append(self.states[-1] | self.touched[-1])
            self.fences.append(fold.fence.encode())

    @property
    def slot(self) -> int:
        """Where its keys are."""
        return slot_of(self.fence_key)

    @property
    def fence_key(self) -> bytes:
        """The key of its fence."""
        return fence_key("demo", *self.place)

    def keys(self) -> dict[bytes, bytes | None]:
        """Every key of the partition with its value once all is folded."""
        return {self.fence_key: self.fences[-1]} | {state_key("demo", *self.place, e): value for e, value in self.states[-1].items()}


class Hammer:
    """One writer and one reader of a partition. `at`: the writer's position; `lost`: batches that were acknowledged and are gone."""

    def __init__(self, client: RedisClient, log: Log) -> None:
        self._log = log
        self._writer = OnlineWriter(client, "demo")
        self._reader = OnlineReader(client, "demo", {VIEW.name: KERNEL})
        self.at = self.lost = self.reads = self.rewinds = self.refused_reads = self.refused_writes = 0
        self.reasons: set[str] = set()

    async def write(self) -> None:
        """Applies the whole log as feature computation does: ask again after an error, go back to the store's fence after a refusal."""
        log, known = self._log, False
        while self.at < len(log.touched) or not known:
            try:
                if not known:
                    (fence,) = await self._writer.fences([log.place])
                    if isinstance(fence, SlotUnavailable):
                        raise fence
                    self.lost += max(0, self.at - position(fence))
                    self.at, known = position(fence), True
                    assert fence == log.fences[self.at]
                    continue
                known = await self._writer.apply(*log.place, log.fences[self.at], log.fences[self.at + 1] or b"", log.touched[self.at])
            except StoreUnavailable as error:
                self.refused_writes += 1
                self.reasons.add(error.message.partition("Redis answered: ")[2].partition(" ")[0])
                await asyncio.sleep(0.01)
                continue
            self.at += known
            self.rewinds += not known
            await asyncio.sleep(0.0005)

    async def read(self) -> None:
        """Reads entities, known and unknown, until cancelled: each is exactly what the log gives at the fence that came with it."""
        draw = random.Random(self._log.partition)
        while True:
            entities = [*draw.choices(self._log.entities, k=3), draw.choice(self._log.entities[:20])][draw.randrange(4) :]
            try:
                found = await self._reader.read([(VIEW.name, entity) for entity in entities])
            except StoreUnavailable:
                self.refused_reads += 1
                await asyncio.sleep(0.01)
                continue
            assert len({stored.fence for stored in found}) == 1
            for entity, stored in zip(entities, found, strict=True):
                assert stored.value == self._log.states[stored.fence.next].get(entity), (entity, stored.fence)
            self.reads += 1
            await asyncio.sleep(0.0005)


@asynccontextmanager
async def hammering(client: RedisClient, logs: list[Log]) -> AsyncIterator[list[Hammer]]:
    """Hammer partitions; at the end every log is applied whole and nothing was ever read that the log does not give."""
    hammers = [Hammer(client, log) for log in logs]
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(hammer.read()) for hammer in hammers]
        writers = [group.create_task(hammer.write()) for hammer in hammers]
        yield hammers
        async with asyncio.timeout(180):
            await asyncio.gather(*writers)
        for reader in readers:
            reader.cancel()
