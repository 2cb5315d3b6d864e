"""The checker: a process of its own that reads the logs and the stores while faults strike, and says what is wrong.

    python -m tests.faults.checker CONFIGURATION

It folds every partition of every view a few seconds behind the system. At random moments it reads a fence and some entities in one command, and
judges them when its fold has come to that very fence; every prediction is computed again where the fold is at the prediction's stamp. Once a
second a line of JSON on its output tells how things stand; a line on its input says that all has come to its end, and what must be there.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import random
import sys
import time
from pathlib import Path
from typing import BinaryIO

import aiohttp
import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from tests.faults.logcheck import PartitionCheck, missing
from tests.faults.messages import Configuration, Finish, Status
from tests.faults.predictions import Predictions, Question
from tests.faults.sampling import Sample, Sampler
from tests.faults.served import Answer, ask_insistently, compare, connection
from tests.faults.tables import TableCheck
from tests.faults.tally import Tally
from tests.faults.versions import Versions

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project, load_project
from tidemill.kafka.client import consumer
from tidemill.kernel.view import ViewKernel
from tidemill.names import LogName, version_name
from tidemill.offline.store import OfflineStore
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import view_topic

HOLD_SECONDS, TABLES_SECONDS = 8.0, 10.0
_PORTION, _FOLD_AT_ONCE = 400, 2_000
_Waiting = tuple[int, int, float, Sample | Answer | Question]
"""A position, the order of coming, when it came (monotonic seconds), and what is to be judged there."""


class Checker:
    """Follows the logs; see the module's text."""

    def __init__(self, config: Configuration, tell_to: BinaryIO) -> None:
        self._config, self._tell_to = config, tell_to
        kafka = KafkaSettings(bootstrap_servers=config.kafka)
        self._project = load_project(Path(config.project))
        self._versions = Versions(kafka, self._project)
        self._tally = Tally()
        self.status = Status(self._tally.counts, self._tally.findings, [])
        self._store = OfflineStore(config.offline)
        self._predictions = Predictions(self._project, self._store, self._tally)
        self._checks: dict[TopicPartition, PartitionCheck] = {}
        self._tables: dict[LogName, TableCheck] = {}
        self._queues: dict[TopicPartition, list[_Waiting]] = {}
        self._turns = itertools.count()
        self._sampler = Sampler(self._project.name, self._checks, self.status, random.Random(config.seed), self._put, self._name)
        self._reader = consumer(kafka)
        self._hold_seconds = HOLD_SECONDS
        self._take(self._project)

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Checks until told that all has come to its end, checks the rest, and returns."""
        await self._connect()
        async with RedisLink(self._config.redis_url, timeout_seconds=2) as link:
            telling, following = asyncio.create_task(self._tell()), asyncio.create_task(self._versions.run())
            per_second = self._config.samples_per_second
            checking = [
                asyncio.create_task(work)
                for work in (
                    self._work(),
                    self._compare_tables(),
                    self._sampler.read_store(link, per_second),
                    self._sampler.ask_serving(link, self._config.serving, per_second / 4),
                )
            ]
            line = asyncio.create_task(commands.readline())
            done, _ = await asyncio.wait([line, telling, following, *checking], return_when=asyncio.FIRST_COMPLETED)
            for task in checking:
                task.cancel()
            await asyncio.gather(*checking, return_exceptions=True)
            for ended in done:
                ended.result()
            if line.done() and line.result():
                await self._finish(link, msgspec.json.decode(line.result(), type=Finish))
            telling.cancel()
            following.cancel()
        await self._reader.stop()

    async def _connect(self) -> None:
        await self._reader.start()
        self._assign(dict.fromkeys(self._predictions.partitions, 0))

    def _assign(self, predictions: dict[TopicPartition, int]) -> None:
        """Reads every log on from where it is folded, and the predictions from these positions."""
        places = {**{tp: check.next for tp, check in self._checks.items()}, **predictions}
        self._reader.assign(list(places))
        for tp, position in places.items():
            self._reader.seek(tp, position)

    async def _follow(self) -> None:
        """Checks the versions that are there now."""
        project = self._versions.project
        if project is not self._project:
            self._take(project)
            self._assign({tp: await self._reader.position(tp) for tp in self._predictions.partitions})

    def _take(self, project: Project) -> None:
        self._project = self._predictions.project = project
        logs = {view.log: view for view in project.views.values()}
        for tp in [tp for tp, check in self._checks.items() if check.view.log not in logs]:
            for *_, what in self._queues.pop(tp):
                if isinstance(what, Question):
                    self._predictions.too_late(what)
            del self._checks[tp]
        for log in self._tables.keys() - logs.keys():
            del self._tables[log]
        for log, view in logs.items():
            if log not in self._tables:
                self._add(view)

    def _add(self, view: FeatureView) -> None:
        kernel, checks = ViewKernel(view), list[PartitionCheck]()
        for partition in range(view.partitions):
            tp = TopicPartition(view_topic(self._project.name, view.log), partition)
            self._checks[tp], self._queues[tp] = PartitionCheck(view, kernel, partition, self._tally), []
            checks.append(self._checks[tp])
        self._tables[view.log] = TableCheck(view, checks, self._store)

    def _name(self, view: FeatureView) -> str:
        """A name of a version that means no other, whatever comes in force."""
        return version_name(view.plain_name, view.version) if self._project.catalogue else view.name

    def _put(self, tp: TopicPartition, position: int, what: Sample | Answer | Question) -> None:
        if tp in self._queues:
            heapq.heappush(self._queues[tp], (position, next(self._turns), time.monotonic(), what))
        elif isinstance(what, Question):
            self._predictions.too_late(what)

    async def _work(self) -> None:
        while True:
            try:
                await self._follow()
                await self._read_predictions()
                for tp in self._checks:
                    await self._settle(tp)
            except KafkaError:
                await asyncio.sleep(0.5)
            await asyncio.sleep(0.05)

    async def _read_predictions(self, wait_seconds: float = 0) -> None:
        fetched = await self._reader.getmany(*self._predictions.partitions, timeout_ms=int(wait_seconds * 1000))
        for records in fetched.values():
            for record in records:
                for question in self._predictions.take(record):
                    self._put(TopicPartition(view_topic(self._project.name, question.log), question.partition), question.position, question)

    async def _settle(self, tp: TopicPartition) -> None:
        """Judges what has waited long enough, in the order of the log."""
        queue, check = self._queues[tp], self._checks[tp]
        while queue and queue[0][2] < time.monotonic() - self._hold_seconds:
            position, _, _, what = heapq.heappop(queue)
            if position >= check.next:
                await self._fold_to(tp, position)
                if check.next == position:
                    self._judge(check, what)
                elif isinstance(what, Question):
                    self._predictions.too_late(what)
            elif isinstance(what, Question):
                self._predictions.too_late(what)
            else:
                self.status.behind += 1

    def _judge(self, check: PartitionCheck, what: Sample | Answer | Question) -> None:
        match what:
            case Sample():
                self.status.samples += 1
                self.status.values += len(what.values)
                check.judge(what.fence, what.values)
            case Answer():
                self.status.served += len(what.values)
                compare(check, what)
            case Question():
                self._predictions.answer(what, check.reading(what.key, what.time_ms))

    async def _fold_to(self, tp: TopicPartition, position: int) -> None:
        check = self._checks[tp]
        while check.next < position and self._there(check.view.log):
            most = min(position - check.next, _FOLD_AT_ONCE)
            try:
                fetched = await self._reader.getmany(tp, timeout_ms=500, max_records=most)
            except KafkaError:
                await asyncio.sleep(0.5)
                continue
            for records in fetched.values():
                check.advance(records)
            await asyncio.sleep(0)

    def _there(self, log: LogName) -> bool:
        """Whether a log is to be read still: of one that was pruned there is no more."""
        return any(view.log == log for view in self._versions.project.views.values())

    async def _compare_tables(self) -> None:
        while True:
            await asyncio.sleep(TABLES_SECONDS)
            for table in list(self._tables.values()):
                self.status.rows += await asyncio.to_thread(table.compare)

    async def _tell(self) -> None:
        while True:
            self._print()
            await asyncio.sleep(1)

    def _print(self) -> None:
        status, predictions = self.status, self._predictions
        status.predictions, status.recomputed = predictions.records, predictions.recomputed
        status.repeated, status.pruned = predictions.repeated, predictions.pruned
        totals = [check.naive.counts for check in self._checks.values()]
        status.fold = {name: sum(total[name] for total in totals) for name in totals[0]}
        self._tell_to.write(msgspec.json.encode(status) + b"\n")
        status.rewinds.clear()
        status.findings.clear()

    async def _finish(self, link: RedisLink, finish: Finish) -> None:
        """Everything, now that nothing moves any more."""
        self._hold_seconds = -1
        await self._versions.reach(finish.catalogue)
        await self._follow()
        ends = await self._reader.end_offsets([*self._checks, *self._predictions.partitions])
        for tp in self._predictions.partitions:
            while await self._reader.position(tp) < ends[tp]:
                await self._read_predictions(wait_seconds=0.5)
        async with connection(self._config.serving, 30) as http:
            for tp, check in self._checks.items():
                await self._settle(tp)
                await self._fold_to(tp, ends[tp])
                await self._whole(link, http, tp, check)
        for log, table in self._tables.items():
            sent = finish.sent | finish.loaded.get(log, {})
            self._tally.add("lost", f"{log}: events", missing(table.checks, sent))
            self.status.rows += await asyncio.to_thread(table.compare, whole=True)
        await asyncio.to_thread(self._predictions.finish)
        self.status.finished = True
        self._print()

    async def _whole(self, link: RedisLink, http: aiohttp.ClientSession, tp: TopicPartition, check: PartitionCheck) -> None:
        """Every entity of a partition, as it is stored and as it is served; the fence stands at the end of the log."""
        entities = check.entities
        for start in range(0, max(1, len(entities)), _PORTION):
            portion = entities[start : start + _PORTION]
            await self._sampler.read_insistently(link, tp, portion)
            found = [what for position, *_, what in self._queues[tp] if isinstance(what, Sample) and position == check.next]
            self._queues[tp].clear()
            if not found:
                check.tell("different", "the fence is not at the end of the log", [check.next])
            for sample in found:
                self.status.values += len(sample.values)
                check.judge(sample.fence, sample.values, naively=_PORTION)
            view = next(view for view in self._project.views.values() if view.log == check.view.log)
            for name in {view.name, self._name(view)}:
                answer = await ask_insistently(http, check.view, name, portion)
                if answer is None:
                    check.tell("different", "is not served in the end", [name])
                else:
                    self._judge(check, answer)


async def _main(config: Configuration) -> None:
    commands = asyncio.StreamReader(limit=1 << 28)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as tell_to:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no status
        await Checker(config, tell_to).run(commands)


if __name__ == "__main__":
    os.nice(5)  # whoever answers requests goes first
    asyncio.run(_main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Configuration)))
