"""Copies a view's log into one with another number of partitions, once nobody writes, and marks the copy as the log in use.

It can be killed at any moment and run again. The order of the copy is a function of the old log. So the records that the new topic holds
must be the beginning of the copy, and the copy goes on after them. The mark comes last, after both logs were folded and every entity was
compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple, Protocol

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from tidemill.checksums import proof_of
from tidemill.chunks import chunks
from tidemill.clock import Deadline, now_ms
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.kafka.client import started_producer
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.topics import committed, ensure_topics, group_members, offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.names import LogName, parse_log
from tidemill.offline.store import OfflineStore
from tidemill.operations.repartition.old_log import FETCH_RECORDS, Copy, OldLog, Read, read_log
from tidemill.records import LogRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.marks import append_mark
from tidemill.streams.topics import ingestion_group, logs_topic, topic_specs, view_topic
from tidemill.streams.view_logs import logs_in_use

WAVE_RECORDS = 5_000
QUIET_SECONDS = 20.0
_POLL_SECONDS = 0.5
_AGAIN = "delete the topic {0} and run this again"

Phase = Literal["read", "copy", "check"]


class CopyProgress(Protocol):
    """Called with the progress of a phase."""

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """`done` of `total` records."""


class Repartitioned(NamedTuple):
    """The mark that was written, and how many entities were compared."""

    mark: LogRecord
    entities: int


class Repartition:
    """Brings a view's records into the log that the project declares."""

    def __init__(self, project: Project, view: FeatureView, store: OfflineStore, kafka: KafkaSettings, progress: CopyProgress) -> None:
        self._project, self._view, self._store, self._kafka, self._progress = project, view, store, kafka, progress
        self._topic = view_topic(project.name, view.log)
        self._kernel = ViewKernel(view)

    async def run(self) -> Repartitioned | None:
        """Copies, compares and marks. None: the declared log is in use already, or no other log holds records.

        Raises TidemillError, and leaves the old log in use, when ingestion runs or stopped within a wave, when the new topic holds other
        records than the copy, or when the two logs fold to different values.
        """
        used = (await logs_in_use(self._kafka, self._project)).get(self._view.name)
        if used in (None, self._view.log):
            return None
        await self._quiet()
        old, read = await self._read(used)
        mark = LogRecord(self._view.name, self._view.log, used, False, now_ms())
        await self._tell(mark)
        await ensure_topics(self._kafka, {self._topic: topic_specs(self._project)[self._topic]})
        moved = await self._copy(old)
        entities = await self._compare(old)
        await self._quiet()
        await self._unchanged(read.ends)
        mark = LogRecord(
            self._view.name, self._view.log, used, True, now_ms(), old.count(), old.undecodable, old.sent_twice, moved
        )  # fmt: skip
        await self._tell(mark)
        return Repartitioned(mark, entities)

    async def _quiet(self) -> None:
        """Returns once ingestion's group has no members; a process that just ended counts as a member for some seconds."""
        group, deadline = ingestion_group(self._project.name), Deadline(QUIET_SECONDS)
        while members := await group_members(self._kafka, group):
            if deadline.expired:
                raise TidemillError(f"ingestion runs: the group {group} has {members} members", mend="stop ingestion and run this again")
            await asyncio.sleep(_POLL_SECONDS)

    async def _read(self, used: LogName) -> tuple[OldLog, Read]:
        parsed = parse_log(used)
        assert parsed is not None
        view = replace(self._view, partitions=parsed.partitions)
        read = await read_log(self._project, view, self._store, self._kafka, lambda done, total: self._progress("read", done, total))
        old = await asyncio.to_thread(OldLog, view, read.tables, self._view.partitions)
        await self._routed(view, old.sources())
        return old, read

    async def _routed(self, view: FeatureView, sources: Mapping[int, int]) -> None:
        """Raises TidemillError when ingestion has not committed all events that the old log has records of.

        It would send these events again. A new partition that has seen later events would skip their records, also those the old log lacks.
        """
        done = await committed(self._kafka, ingestion_group(self._project.name))
        for partition, offset in sorted(sources.items()):
            position = done.get(TopicPartition(view.source.topic, partition), 0)
            if position <= offset:
                raise TidemillError(
                    f"ingestion stopped before it had committed {view.source.topic}[{partition}] up to {offset + 1} (it is at {position}),"
                    f" which {view.log} already has in part",
                    mend=f"declare partitions={view.partitions} once more, start ingestion, stop it in good order, and run this again",
                )

    async def _tell(self, mark: LogRecord) -> None:
        topic = logs_topic(self._project.name)
        await ensure_topics(self._kafka, {topic: topic_specs(self._project)[topic]})
        await append_mark(self._kafka, self._project.name, mark)

    async def _copy(self, old: OldLog) -> int:
        """Completes every new partition. Returns how many records have a source of their own."""
        done, moved, total = 0, 0, old.count()
        async with started_producer(self._kafka) as made:
            for partition in range(self._view.partitions):
                copies = old.copies(partition)
                at, moved_before = await self._resume(partition, copies)
                done, moved = done + at, moved + moved_before
                for wave in chunks(copies, WAVE_RECORDS):
                    await self._send(made, partition, at, [(key, value, []) for key, value, _ in wave])
                    at, done, moved = at + len(wave), done + len(wave), moved + sum(copy.moved for copy in wave)
                    self._progress("copy", done, total)
        self._progress("copy", done, total)
        return moved

    async def _resume(self, partition: int, copies: Iterator[Copy]) -> tuple[int, int]:
        """Skips the copies that the new topic holds. Returns how many there are, and how many of them have a source of their own.

        Raises TidemillError when the topic holds anything else.
        """
        held = moved = 0
        async for records in self._records(partition):
            for record in records:
                key, value, is_moved = next(copies, (None, None, False))
                if key is None or proof_of(key, value) != proof_of(record.key, record.value):
                    raise TidemillError(
                        f"{self._topic}[{partition}] has at {record.offset} another record than the copy would have",
                        mend=f"a log cannot be filled twice: {_AGAIN.format(self._topic)}, or declare a partition count the view never had",
                    )
                held, moved = held + 1, moved + is_moved
        return held, moved

    async def _send(self, made: AIOKafkaProducer, partition: int, at: int, records: list[Record]) -> None:
        target = self._topic, partition
        first, _ = (await send_wave(made, {target: records}))[target]
        if first != at:  # records that a killed run had sent arrived after `_resume`, or somebody else writes
            raise TidemillError(
                f"{self._topic}[{partition}] was written by somebody else meanwhile, at {at}", mend=_AGAIN.format(self._topic)
            )

    async def _records(self, partition: int) -> AsyncIterator[list[ConsumerRecord]]:
        """All records that a new partition holds now."""
        place = TopicPartition(self._topic, partition)
        async with DenseReader(self._kafka, {place: 0}, {}) as reader:
            async for fetched in read_to_end(reader):
                for records in fetched.values():
                    yield records

    async def _compare(self, old: OldLog) -> int:
        """Folds both logs, the new one as Kafka has it, and compares every entity; returns how many there are. Raises TidemillError."""
        entities = done = 0
        for partition in range(self._view.partitions):
            expected, found = await asyncio.to_thread(self._fold_old, old, partition), dict[bytes, EntityState]()
            fold, decode = PartitionFold.start(self._kernel), entry_decoder(self._view)
            async for records in self._records(partition):
                fold.advance([decode(record.offset, record.key, record.value) for record in records], found)
                done += len(records)
                self._progress("check", done, old.count())
            encode_state = self._kernel.encode
            differing = [key for key in expected.keys() | found.keys() if key not in expected or key not in found
                         or encode_state(expected[key]) != encode_state(found[key])]  # fmt: skip
            if differing or (fold.fence.next, fold.fence.resent, fold.fence.poison) != (old.count(partition), 0, 0):
                which = f": {len(differing)} entities differ, one is {min(differing).decode()!r}" if differing else ""
                raise TidemillError(
                    f"{self._topic}[{partition}] does not fold to what {old.view.log} does{which}", mend=_AGAIN.format(self._topic)
                )
            entities += len(expected)
        return entities

    def _fold_old(self, old: OldLog, partition: int) -> dict[bytes, EntityState]:
        states: dict[bytes, EntityState] = {}
        for share in old.shares(partition):
            fold = PartitionFold.start(self._kernel)
            for entries in chunks(share.entries(), FETCH_RECORDS):
                fold.advance(entries, states)
        return states

    async def _unchanged(self, ends: Mapping[TopicPartition, int]) -> None:
        """Raises TidemillError when the old log has grown since it was read."""
        found = await offset_ranges(self._kafka, *{tp.topic for tp in ends})
        for tp, end in ends.items():
            if found[tp].end != end:
                raise TidemillError(
                    f"{tp.topic}[{tp.partition}] went on from {end} to {found[tp].end} meanwhile",
                    mend=f"stop the process that writes to it; then {_AGAIN.format(self._topic)}",
                )
