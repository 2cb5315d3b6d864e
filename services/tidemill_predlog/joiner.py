"""The worker that drives the join: reads both topics, commits results with the positions they cover, publishes them.

After any failure it starts anew from the table of results: it feeds the join with the predictions and outcomes of the last hours below the
positions, predictions from their table as far as it goes, the others from Kafka, and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.declarations.project import Project
from tidemill.errors import UnknownTable
from tidemill.kafka.client import GATHERING, started_producer
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import recreated
from tidemill.kafka.topics import offsets_at
from tidemill.offline.mirror import CHECK_SECONDS
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import MirrorTable, probabilities_of_row
from tidemill.records import OutcomeRecord, PredictionRecord, ResultRecord, decoder
from tidemill.runtime import metrics
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.threads import to_its_end
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.topics import outcomes_topic, results_topic, topic_specs
from tidemill.timestamps import rfc3339
from tidemill_predlog.join import Join, KnownOutcome, LoggedPrediction
from tidemill_predlog.outbox import Outbox
from tidemill_predlog.results import JoinProgress, ResultsTable

log = get_logger(__name__)
T = TypeVar("T")

COMMIT_SECONDS = 1.0
IDLE_COMMIT_SECONDS = 10.0
_FETCH_SECONDS = 0.2
_FETCH_ROWS = 20_000
_BARRIER_SECONDS = 0.2
_PREDICTION, _OUTCOME = decoder(PredictionRecord), decoder(OutcomeRecord)
_PREDICTION_COLUMNS = ["partition", "offset", "id", "model", "version", "subject", "time", "output", "probabilities"]


class Joiner:
    """Joins until cancelled; reports on the board as `join`."""

    def __init__(self, store: OfflineStore, project: Project, predictions: MirrorTable, kafka: KafkaSettings, board: HealthBoard) -> None:
        self._store = store
        self._kafka = kafka
        self._board = board
        self._predictions, specs = predictions, topic_specs(project)
        self._waits = {name: model.outcome.wait for name, model in project.models.items()}
        self._ahead_ms = max((model.outcome.source.future_ms for model in project.models.values()), default=0)
        self._topic = results_topic(project.name)
        self._spec = specs[self._topic]
        self._outcomes = [TopicPartition(outcomes_topic(project.name), p) for p in range(specs[outcomes_topic(project.name)].partitions)]
        asked = [TopicPartition(predictions.topic, p) for p in range(predictions.partitions)]
        self._table = ResultsTable(store, [*asked, *self._outcomes])
        self.pulse = Pulse("join")
        board.require("join")

    async def run(self) -> None:
        """Join. A failure is shown on the board, and the join starts again from the table of results."""
        await supervise(self._follow, partial(self._board.down, "join"), [self.pulse])

    async def _follow(self) -> None:
        progress = await to_its_end(self._table.open)
        self.pulse.beat()
        async with started_producer(self._kafka) as made:
            self.pulse.beat()
            outbox = Outbox(self._kafka, made, self._topic, self._spec, self._table, self.pulse)
            await outbox.start(progress.seq)
            self.pulse.beat()
            join = Join(self._waits, progress.clock)
            stored = await asyncio.to_thread(self._feed_table, join, progress)
            stored |= await self._outcomes_since(join.clock - join.memory_ms - self._ahead_ms, progress)
            await self._feed_rest(join, stored, progress)
            join.advance(progress.clock)
            join.take()  # all of them are in the table: the join is as it was at that commit
            join.accepted.clear()
            join.late.clear()
            join.overdue.clear()
            await self._go_on(outbox, join, progress)

    def _feed_table(self, join: Join, progress: JoinProgress) -> dict[TopicPartition, int]:
        """Feeds the join with the table of predictions, below the positions covered. Returns the offsets from which Kafka must be read."""
        table = self._predictions
        covered = {p: progress.positions[TopicPartition(table.topic, p)] for p in range(table.partitions)}
        try:
            snapshot = self._store.snapshot(table.name)
            positions = snapshot.positions
        except UnknownTable:
            positions = dict.fromkeys(covered, 0)
        for p, end in covered.items():
            self.pulse.beat()
            if positions[p] and end:
                below = (pc.field("partition") == p) & (pc.field("offset") < end)
                columns = [name for name in _PREDICTION_COLUMNS if name in snapshot.columns]  # an older table has no probabilities
                _feed_predictions(join, snapshot.scan(columns, below & (pc.field("time") >= join.clock - join.memory_ms)))
        return {TopicPartition(table.topic, p): min(positions[p], end) for p, end in covered.items()}

    async def _outcomes_since(self, time_ms: int, progress: JoinProgress) -> dict[TopicPartition, int]:
        """The offsets from which outcomes must be read: an outcome may be known later than it was written, by `future` of its event at most."""
        covered = {target: progress.positions[target] for target in self._outcomes if progress.positions[target]}
        found = await offsets_at(self._kafka, dict.fromkeys(covered, max(time_ms, 0)))
        self.pulse.beat()
        return {target: min(found.get(target, end), end) for target, end in covered.items()}

    async def _feed_rest(self, join: Join, stored: dict[TopicPartition, int], progress: JoinProgress) -> None:
        """Feeds the join with the records from `stored` up to the positions covered."""
        lacking = {target: position for target, position in stored.items() if position < progress.positions[target]}
        if not lacking:
            return
        async with DenseReader(self._kafka, lacking, {}) as reader:
            for target, end in (await reader.ends()).items():
                if end < progress.positions[target]:
                    raise recreated(target, progress.positions[target], f"Kafka ends at {end}")
            async for fetched in read_to_end(reader, {target: progress.positions[target] for target in lacking}):
                if fetched:
                    self.pulse.beat()
                for target, records in fetched.items():
                    self._feed(join, target, [record for record in records if record.offset < progress.positions[target]])

    async def _go_on(self, outbox: Outbox, join: Join, progress: JoinProgress) -> None:
        """Joins what comes, and commits and publishes about once a second."""
        async with DenseReader(self._kafka, progress.positions, {}, **GATHERING) as reader:
            clock = Clock(progress.now)
            results: list[ResultRecord] = []
            committed = time.monotonic()
            if reader.next == reader.first_ends:
                self._board.up("join")  # nothing waits to be joined
            while True:
                for target, records in (await reader.fetch(_FETCH_SECONDS, _FETCH_ROWS)).items():
                    clock.now = max(clock.now, self._feed(join, target, records))
                await clock.drive(join, reader)
                results += join.take()
                waited_seconds = time.monotonic() - committed
                moved = clock.now != progress.now or reader.next != progress.positions
                if (results and waited_seconds > COMMIT_SECONDS) or (moved and waited_seconds > IDLE_COMMIT_SECONDS):
                    after = JoinProgress(dict(reader.next), join.clock, clock.now, progress.seq + len(results), progress.commit + 1)
                    await self._commit(outbox, results, progress, after)
                    self._count(join, results)
                    progress, results, committed = after, [], time.monotonic()
                if not results:
                    self._board.up("join")  # not before: a full disk shows at the first commit
                self.pulse.beat()

    async def _commit(self, outbox: Outbox, results: Sequence[ResultRecord], before: JoinProgress, after: JoinProgress) -> None:
        numbered = [msgspec.structs.replace(result, seq=before.seq + i) for i, result in enumerate(results)]
        await to_its_end(self._table.append, numbered, before, after)
        await outbox.publish(numbered)

    def _feed(self, join: Join, target: TopicPartition, records: Sequence[Any]) -> int:
        """Feeds the join. Returns the latest time that has certainly passed: no time of a record counts beyond the clock of the process
        that wrote it."""
        if target in self._outcomes:
            outcomes = [(record, _decoded(_OUTCOME, record.value)) for record in records]
            for _, outcome in outcomes:
                if outcome is not None:
                    join.outcome(KnownOutcome(outcome.model, outcome.subject, outcome.value, outcome.known, outcome.id, outcome.asks))
            return max((min(outcome.known, record.timestamp) for record, outcome in outcomes if outcome is not None), default=0)
        predictions = [p for record in records if record.key is not None and (p := _decoded(_PREDICTION, record.value)) is not None]
        for p in predictions:
            join.predict(LoggedPrediction(p.id, p.model, p.version, p.subject, p.time, p.output, p.probabilities))
        return max((min(p.time, p.served) for p in predictions), default=0)

    def _count(self, join: Join, results: Sequence[ResultRecord]) -> None:
        for (model, status), count in Counter((result.model, result.status) for result in results).items():
            (metrics.PREDLOG_JOINED if status == "joined" else metrics.PREDLOG_NEVER).labels(model).inc(count)
        for model in self._waits:
            metrics.PREDLOG_PENDING.labels(model).set(join.pending[model])
            metrics.PREDLOG_PREDICTIONS.labels(model).inc(join.accepted.pop(model, 0))
            metrics.PREDLOG_LATE.labels(model).inc(join.late.pop(model, 0))
            metrics.PREDLOG_OVERDUE.labels(model).inc(join.overdue.get(model, 0))
        if join.overdue:
            log.warning(
                "predictions are given up at once: their wait was over when they were logged", predictions=dict(join.overdue),
                time_reached=rfc3339(join.clock), mend="in a replay of history give every request its `time`: one of now ends all waits before it",
            )  # fmt: skip
            join.overdue.clear()


class _Ends(Protocol):
    """What the clock needs of a reader."""

    @property
    def next(self) -> Mapping[TopicPartition, int]:
        """The offset after the last record read, by partition."""

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of each partition now."""


class Clock:
    """Lets the join's clock pass a time once everything has been read that was in the log when that time was first seen.

    Partitions are read at different speeds, above all after a pause. Without this, a prediction could be given up too early, only because
    the partition of its outcome is read later than others.
    """

    def __init__(self, now: int) -> None:
        self.now = now
        self._target: tuple[int, dict[TopicPartition, int]] | None = None
        self._asked = 0.0

    async def drive(self, join: Join, reader: _Ends) -> None:
        """Advances the join when that is due. Raises KafkaUnavailable when Kafka has not answered for a while."""
        if self._target is not None:
            time_ms, ends = self._target
            if all(reader.next[target] >= end for target, end in ends.items()):
                waiting, before = join.pending.total(), join.clock
                join.advance(time_ms)
                if before and time_ms - before > join.memory_ms and waiting > join.pending.total():
                    log.warning(
                        "time went on at once by more than any wait", before=rfc3339(before), now=rfc3339(time_ms),
                        given_up=waiting - join.pending.total(),
                    )  # fmt: skip
                self._target = None
        idle = time.monotonic() - self._asked
        if (self._target is None and self.now > join.clock and idle > _BARRIER_SECONDS) or idle > CHECK_SECONDS:
            self._asked = time.monotonic()
            ends = await reader.ends()
            self._target = self._target or (self.now, ends)
            for target, end in ends.items():
                metrics.PREDLOG_LAG.labels(target.topic, str(target.partition)).set(max(end - reader.next[target], 0))


def _decoded(decoder: msgspec.json.Decoder[T], value: bytes | None) -> T | None:
    """A record, or None where the tables have a blank row."""
    try:
        return None if value is None else decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _feed_predictions(join: Join, rows: pa.Table) -> None:
    for row in rows.drop_columns(["partition", "offset"]).to_pylist():
        join.predict(LoggedPrediction(**row | {"probabilities": probabilities_of_row(row.get("probabilities"))}))
