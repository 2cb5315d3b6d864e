"""The checker: a process of its own that reads the logs and the stores while faults strike, and says what is wrong.

    python -m tests.faults.checker CONFIGURATION

It folds every partition of every view a few seconds behind the system. At random moments it reads a fence and some entities in one command, and
judges them when its fold has come to that very fence; every prediction is computed again where the fold is at the prediction's stamp. Once a
second a line of JSON on its output tells how things stand; a line on its input says that all has come to its end, and what must be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from tests.faults.logcheck import PartitionCheck, missing
from tests.faults.predictions import Predictions
from tests.faults.tables import TableCheck
from tests.faults.tally import Tally

from tidemill.errors import TidemillError, Unavailable
from tidemill.fences import Fence
from tidemill.kafka import consumer
from tidemill.kernel import ViewKernel
from tidemill.offline_store import OfflineStore
from tidemill.project import load_project
from tidemill.redis_link import RedisLink
from tidemill.settings import KafkaSettings
from tidemill.topics import fence_key, state_key, view_topic

HOLD_SECONDS = 8.0
TABLES_SECONDS = 10.0
SAMPLE_ENTITIES = 20
_PORTION = 400
_FOLD_AT_ONCE = 2_000


class Configuration(msgspec.Struct, frozen=True):
    """Where everything is."""

    kafka: str
    redis_url: str
    offline: str
    project: str
    seed: int
    samples_per_second: float = 20


class Rewind(NamedTuple):
    """A fence that went back, when it was seen (monotonic seconds). `found` None: it was gone."""

    at: float
    place: str
    before: int
    found: int | None


class Finish(msgspec.Struct, frozen=True):
    """What must be there in the end: acknowledged numbers of each producer, and the spoiled ones among them."""

    sent: dict[int, tuple[int, set[int]]]


class Status(msgspec.Struct):
    """How things stand. `behind`: samples that could not be judged, since the store had gone back."""

    counts: dict[str, int]
    findings: list[str]
    rewinds: list[Rewind]
    events: int = 0
    samples: int = 0
    values: int = 0
    behind: int = 0
    rows: int = 0
    predictions: int = 0
    recomputed: int = 0
    repeated: int = 0
    fold: dict[str, int] = {}
    finished: bool = False


class Sample(NamedTuple):
    """A fence and values, as they were read in one command."""

    fence: Fence | None
    values: dict[bytes, bytes | None]


class Checker:
    """Follows the logs; see the module's text."""

    def __init__(self, config: Configuration, tell_to: BinaryIO) -> None:
        self._config, self._tell_to = config, tell_to
        self._project = load_project(Path(config.project))
        self._tally = Tally()
        kernels = {view.name: ViewKernel(view) for view in self._project.views.values()}
        self._checks = {
            TopicPartition(view_topic(self._project.name, view.log), partition): PartitionCheck(
                view, kernels[view.name], partition, self._tally
            )
            for view in self._project.views.values()
            for partition in range(view.partitions)
        }
        self._store = OfflineStore(config.offline)
        self._predictions = Predictions(self._project, self._store, self._tally)
        self._tables = [TableCheck(view, list(self._of(view.name).values()), self._store) for view in self._project.views.values()]
        self._pick = random.Random(config.seed)
        self._turns = itertools.count()
        self._queues: dict[TopicPartition, list[tuple[int, int, float, Any]]] = {tp: [] for tp in self._checks}
        self._fences: dict[TopicPartition, int] = {}
        self._kafka = KafkaSettings(bootstrap_servers=config.kafka)
        self._reader = consumer(self._kafka)
        self._holding = True
        self.status = Status(self._tally.counts, self._tally.findings, [])

    def _of(self, view: str) -> dict[TopicPartition, PartitionCheck]:
        return {tp: check for tp, check in self._checks.items() if check.view.name == view}

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Checks until told that all has come to its end, checks the rest, and returns."""
        await self._connect()
        async with RedisLink(self._config.redis_url, timeout_seconds=2) as link:
            tasks = [
                asyncio.create_task(self._sample(link)),
                asyncio.create_task(self._compare_tables()),
                asyncio.create_task(self._tell()),
            ]
            work = asyncio.create_task(self._work())
            line = asyncio.create_task(commands.readline())
            await asyncio.wait([line, work, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, *tasks):
                if task.done():
                    task.result()
            self._holding = False
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.gather(*tasks[:2], return_exceptions=True)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            if line.done() and line.result():
                await self._finish(link, msgspec.json.decode(line.result(), type=Finish))
            tasks[2].cancel()
        await self._reader.stop()

    async def _connect(self) -> None:
        await self._reader.start()
        topics = [*self._checks, *self._predictions.partitions]
        self._reader.assign(topics)
        for tp in topics:
            self._reader.seek(tp, 0)

    async def _sample(self, link: RedisLink) -> None:
        """Reads a fence with entities of its partition at random moments, and as fast as it can for a moment now and then."""
        while True:
            hammering = self._pick.random() < 0.1
            for _ in range(20 if hammering else 1):
                tp = self._pick.choice(list(self._checks))
                known = self._checks[tp].entities
                with contextlib.suppress(TidemillError):
                    await self._read(link, tp, self._pick.sample(known, min(len(known), SAMPLE_ENTITIES)))
            await asyncio.sleep(self._pick.expovariate(self._config.samples_per_second))

    async def _read(self, link: RedisLink, tp: TopicPartition, entities: list[bytes]) -> int:
        """Reads and queues a sample; returns the position of the fence."""
        check = self._checks[tp]
        keys = [state_key(self._project.name, check.view.log, tp.partition, entity) for entity in entities]
        encoded, *values = await link.call(b"MGET", fence_key(self._project.name, check.view.log, tp.partition), *keys)
        try:
            fence = None if encoded is None else Fence.decode(encoded)
        except msgspec.DecodeError as error:
            self._tally.add("different", f"{check.name}: the fence cannot be read", [(encoded, str(error))])
            return 0
        found, before = 0 if fence is None else fence.next, self._fences.get(tp, 0)
        if found < before:
            self.status.rewinds.append(Rewind(time.monotonic(), check.name, before, None if fence is None else found))
        self._fences[tp] = found
        if fence is not None and not fence.builder:
            self._put(tp, found, Sample(fence, dict(zip(entities, values, strict=True))))
        return found

    def _put(self, tp: TopicPartition, position: int, what: Any) -> None:
        heapq.heappush(self._queues[tp], (position, next(self._turns), time.monotonic(), what))

    async def _work(self) -> None:
        while True:
            try:
                await self._read_predictions()
                for tp in self._checks:
                    await self._settle(tp)
            except KafkaError:
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.05)

    async def _read_predictions(self) -> bool:
        fetched = await self._reader.getmany(*self._predictions.partitions, timeout_ms=0)
        for records in fetched.values():
            for record in records:
                for question in self._predictions.take(record):
                    self._put(TopicPartition(view_topic(self._project.name, question.log), question.partition), question.position, question)
        return bool(fetched)

    async def _settle(self, tp: TopicPartition) -> None:
        """Judges what has waited long enough, in the order of the log."""
        queue, check = self._queues[tp], self._checks[tp]
        while queue and (not self._holding or queue[0][2] < time.monotonic() - HOLD_SECONDS):
            position, _, _, what = heapq.heappop(queue)
            if position < check.next:
                if isinstance(what, Sample):
                    self.status.behind += 1
                else:
                    self._predictions.too_late(what)
                continue
            await self._fold_to(tp, position)
            if isinstance(what, Sample):
                self.status.samples += 1
                self.status.values += len(what.values)
                check.judge(what.fence, what.values)
            else:
                self._predictions.answer(what, check.reading(what.key, what.time_ms))

    async def _fold_to(self, tp: TopicPartition, position: int) -> None:
        check = self._checks[tp]
        while check.next < position:
            most = min(position - check.next, _FOLD_AT_ONCE)
            try:
                fetched = await self._reader.getmany(tp, timeout_ms=500, max_records=most)
            except KafkaError:
                await asyncio.sleep(0.5)
                continue
            for records in fetched.values():
                check.advance(records)
            await asyncio.sleep(0)

    async def _compare_tables(self) -> None:
        while True:
            await asyncio.sleep(TABLES_SECONDS)
            for table in self._tables:
                self.status.rows += await asyncio.to_thread(table.compare)

    async def _tell(self) -> None:
        while True:
            self._print()
            await asyncio.sleep(1)

    def _print(self) -> None:
        status = self.status
        status.events = sum(check.naive.counts["folded"] for check in self._checks.values())
        predictions = self._predictions
        status.predictions, status.recomputed, status.repeated = predictions.records, predictions.recomputed, predictions.repeated
        totals = [check.naive.counts for check in self._checks.values()]
        status.fold = {name: sum(total[name] for total in totals) for name in totals[0]}
        self._tell_to.write(msgspec.json.encode(status) + b"\n")
        status.rewinds.clear()
        status.findings.clear()

    async def _finish(self, link: RedisLink, finish: Finish) -> None:
        """Everything, now that nothing moves any more."""
        ends = await self._reader.end_offsets(list(self._checks))
        while await self._read_predictions():
            pass
        for tp, check in self._checks.items():
            await self._settle(tp)
            await self._fold_to(tp, ends[tp])
            await self._whole(link, tp)
            if check.next != ends[tp]:
                self._tally.add("different", f"{check.name}: the fence lies behind the end", [(check.next, ends[tp])])
        for view in self._project.views:
            self._tally.add("lost", f"{view}: events", missing(self._of(view).values(), finish.sent))
        for table in self._tables:
            self.status.rows += await asyncio.to_thread(table.compare, whole=True)
        await asyncio.to_thread(self._predictions.finish)
        self.status.finished = True
        self._print()

    async def _whole(self, link: RedisLink, tp: TopicPartition) -> None:
        """Every entity of a partition."""
        check = self._checks[tp]
        entities = check.entities
        for start in range(0, max(1, len(entities)), _PORTION):
            await self._retried(link, tp, entities[start : start + _PORTION])
            while self._queues[tp]:
                position, _, _, sample = heapq.heappop(self._queues[tp])
                self.status.values += len(sample.values)
                if position == check.next:
                    check.judge(sample.fence, sample.values, naively=_PORTION)
                else:
                    self._tally.add("different", f"{check.name}: the store stands elsewhere in the end", [(position, check.next)])
            await asyncio.sleep(0)

    async def _retried(self, link: RedisLink, tp: TopicPartition, entities: list[bytes]) -> None:
        for _ in range(50):
            try:
                await self._read(link, tp, entities)
            except Unavailable:
                await asyncio.sleep(0.2)
            else:
                return
        raise TidemillError("the online store does not answer in the end")


async def _main(config: Configuration) -> None:
    commands = asyncio.StreamReader(limit=1 << 28)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as tell_to:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no status
        await Checker(config, tell_to).run(commands)


if __name__ == "__main__":
    asyncio.run(_main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Configuration)))
