"""What a worker does with a slice of records, in six steps (`Worker._apply`), and where a partition begins (`Worker.positions`).

One rule covers every fault: the store's fence says which records are applied. When something does not fit the fence, the chain breaks, and
the partition begins again from the fence. A fault that this cannot repair stops that partition only, until a person has changed something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import perf_counter
from typing import TypeVar

from faust.types import TP

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.errors import (
    AbsentColumns,
    CorruptState,
    FenceConflict,
    Rebuilding,
    SlotUnavailable,
    StoreError,
    TidemillError,
    TopicMismatch,
    TopicRecreated,
    Unavailable,
)
from tidemill.kernel.fold import entry_decoder, typed_decoder
from tidemill.kernel.view import ViewKernel
from tidemill.names import LogName
from tidemill.online.writer import OnlineWriter
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.streams.dead_letters import letter_of_refused
from tidemill.streams.topics import view_topic
from tidemill_features.dead_letters import DeadLetters
from tidemill_features.delivery import Chain, Held, Slice
from tidemill_features.partition import Batch, Partition
from tidemill_features.recall import Memory, ReadBack, recall

log = get_logger(__name__)
T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
SLOT_PAUSE_SECONDS = 0.5  # with a longer pause the partition of that slot is set aside, so that the others go on


class Superseded(Exception):
    """The chain was broken while the worker applied a slice of it."""


class Worker:
    """Folds slices of all views of a project. `cache_bytes`: the memory for cached entities, shared evenly by the partitions.

    `read_back`: reads what the logs had before. `refused`: why a partition is not folded, for a person; `held_up`: why the store or Kafka does not take
    a batch now; `recalling`: how many partitions wait for the ids that their logs had lately.
    """

    def __init__(self, project: Project, writer: OnlineWriter, cache_bytes: int, dead_letters: DeadLetters, read_back: ReadBack) -> None:
        self._project = project
        self._writer = writer
        self._dead_letters = dead_letters
        self._cache_bytes = cache_bytes
        self._read_back = read_back
        self.recalling = 0
        views = {view_topic(project.name, view.log): view for view in project.views.values()}
        self._kernels = {topic: ViewKernel(view) for topic, view in views.items()}
        self._decoders = {topic: entry_decoder(view) for topic, view in views.items()}
        self._metrics = {topic: _ViewMetrics(view.name) for topic, view in views.items()}
        self._partitions: dict[TP, Partition] = {}
        self._stopped: dict[TP, tuple[bytes | None, TidemillError]] = {}
        self.refused: dict[TP, str] = {}
        self._held_up: dict[Chain, str] = {}
        self._at_work: set[TP] = set()

    @property
    def held_up(self) -> str | None:
        """See the class."""
        return next(iter(self._held_up.values()), None)

    @property
    def topics(self) -> list[str]:
        """The topics to fold."""
        return list(self._kernels)

    @property
    def declared(self) -> set[TP]:
        """All partitions of these topics."""
        return {TP(topic, number) for topic, kernel in self._kernels.items() for number in range(kernel.view.partitions)}

    @property
    def next(self) -> dict[TP, int]:
        """The next offset of each partition's fence, as far as this worker knows."""
        return {tp: partition.next for tp, partition in self._partitions.items()}

    def give_up(self) -> None:
        """Forgets all partitions, with their entities and ids: other workers may have them now. What is being applied ends as the store decides."""
        self._partitions.clear()

    def view(self, tp: TP) -> str:
        """The view a partition belongs to."""
        return self._kernels[tp.topic].view.name

    async def positions(self, partitions: Collection[TP], held: Held) -> dict[TP, int]:
        """Where each partition begins. A partition that must not be folded is left out; the transport asks for it again later."""
        policy = await self._writer.eviction_policy()
        if policy != "noeviction":
            error = StoreError(f"maxmemory-policy is {policy}", mend="set maxmemory-policy to noeviction: an evicted value would be lost")
            for tp in partitions:
                self._refuse(tp, error)
            return {}
        fences = dict(zip(partitions, await self._writer.fences([self._place(tp) for tp in partitions]), strict=True))
        logs = await held(partitions)
        for tp in partitions:
            self._partitions.pop(tp, None)
        starts, begun = dict[TP, int](), dict[TP, Partition]()
        for tp, stored in fences.items():
            try:
                starts[tp], begun[tp] = await self._begin(tp, logs[tp], stored)
            except (CorruptState, Rebuilding, SlotUnavailable, TopicMismatch, TopicRecreated) as error:
                self._refuse(tp, error)
            else:
                if self.refused.pop(tp, None):
                    log.info("partition is folded again", topic=tp.topic, partition=tp.partition)
        await self._recall(begun, {tp: range(logs[tp].start, partition.next) for tp, partition in begun.items()})
        self._partitions |= begun
        return starts

    async def _recall(self, begun: Mapping[TP, Partition], held: Mapping[TP, range]) -> None:
        """Tells partitions what their logs had lately. `held`: the offsets that each log holds below the fence."""
        timed = {tp: recent for tp, partition in begun.items() if (recent := partition.recent) is not None and recent.turns}
        memories = {tp: Memory(recent, typed_decoder(self._kernels[tp.topic].view)) for tp, recent in timed.items()}
        self.recalling = len(memories)
        try:
            await recall(memories, held, self._read_back)
        finally:
            self.recalling = 0

    async def _begin(self, tp: TP, log_holds: range, stored: bytes | SlotUnavailable | None) -> tuple[int, Partition]:
        """The offset from which a partition is read, and the partition."""
        if isinstance(stored, SlotUnavailable):
            raise stored
        if tp in self._stopped:
            fence, error = self._stopped[tp]
            if fence == stored:
                raise error
            del self._stopped[tp]
        partition = Partition(self._kernels[tp.topic], self._decoders[tp.topic], tp.partition, stored, log_holds.stop)
        start = partition.start(log_holds)
        if stored is None:
            await self._writer.begin(*self._place(tp), partition.stored)
        return start, partition

    def _refuse(self, tp: TP, error: TidemillError) -> None:
        if self.refused.get(tp) != str(error):
            log.error("partition is not folded", topic=tp.topic, partition=tp.partition, reason=error.message, mend=error.mend)
        self.refused[tp] = str(error)

    def _place(self, tp: TP) -> tuple[LogName, int]:
        return self._kernels[tp.topic].view.log, tp.partition

    async def displaced(self, partitions: Collection[TP]) -> set[TP]:
        """Partitions whose stored fence is not the one that we wrote. While no record comes, only this look notices that."""
        known = {tp: self._partitions[tp].stored for tp in partitions if tp in self._partitions}
        found = dict(zip(known, await self._writer.fences([self._place(tp) for tp in known]), strict=True)) if known else {}
        answered = {tp for tp in known if not isinstance(found[tp], SlotUnavailable)}
        unchanged = {tp for tp in answered & self._partitions.keys() if known[tp] == self._partitions[tp].stored}
        return {tp for tp in unchanged - self._at_work if found[tp] != known[tp]}

    async def handle(self, tp: TP, piece: Slice) -> None:
        """Applies a slice, or breaks its chain."""
        chain = piece.chain
        if chain.broken:
            return
        partition = self._partitions[tp]
        self._at_work.add(tp)
        try:
            await self._apply(tp, partition, piece)
        except Superseded:
            return
        except FenceConflict as error:
            log.warning("going back to the store's fence", reason=error.message)
            metrics.REWINDS.labels(self.view(tp), "fence").inc()
            chain.broken = True
        except SlotUnavailable as error:
            self._refuse(tp, error)
            metrics.REWINDS.labels(self.view(tp), "slot").inc()
            chain.broken = True
        except (AbsentColumns, CorruptState, TopicRecreated) as error:
            self._stopped[tp] = partition.stored, error
            self._refuse(tp, error)
            self._metrics[tp.topic].stopped.inc()
            chain.broken = True
        finally:
            self._at_work.discard(tp)

    async def _apply(self, tp: TP, partition: Partition, piece: Slice) -> None:
        """The protocol. A crash between any two steps is harmless: only step 5 changes the store, as a whole or not at all."""
        began = perf_counter()
        # 1. Accept: the slice must follow the one before. The first slice begins one record early: its checksum must be the fence's proof.
        entries = partition.accept(piece.start, piece.records)
        if not entries:
            return
        # 2. Load the entities that are not cached, together with the fence; the fence must be the one this worker knows.
        missing = partition.missing(entries)
        if missing:
            partition.admit(*await self._insist(piece.chain, lambda: self._writer.load(*self._place(tp), missing)))
        # 3. Fold in memory: new values, and the new fence.
        batch = partition.advance(entries)
        # 4. Write dead letters. Before step 5, so that none is lost; after a crash the same letters are written again.
        if batch.progress.refused:
            await self._send_refused(tp, piece, batch)
        # 5. Write values and new fence by one script, if the store still has the old fence. Repeated until it answers: that is harmless.
        written = await self._insist(piece.chain, lambda: self._writer.apply(*self._place(tp), partition.stored, batch.fence, batch.values))
        if not written:
            raise FenceConflict(partition.where, expected=batch.before.next, found=None)
        # 6. Now the store has the batch: remember its fence, trim the cache, count.
        partition.applied(batch, self._cache_bytes // max(1, len(self._partitions)))
        self._metrics[tp.topic].applied(batch, tp.partition, perf_counter() - began)

    async def _send_refused(self, tp: TP, piece: Slice, batch: Batch) -> None:
        """Writes the dead letters of a batch. A worker that folds the slice again writes the same letters again."""
        kernel = self._kernels[tp.topic]
        letters = [
            letter_of_refused(
                kernel.view, tp.topic, tp.partition, refused, kernel.horizon_ms, piece.records[refused.entry.offset - piece.start]
            )
            for refused in batch.progress.refused
        ]
        await self._insist(piece.chain, lambda: self._dead_letters.send(letters))

    async def _insist(self, chain: Chain, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks the store or Kafka until it answers, with growing pauses. Raises Superseded when the chain was broken meanwhile."""
        pause = FIRST_PAUSE_SECONDS
        try:
            while not chain.broken:
                try:
                    return await ask()
                except (Unavailable, StoreError) as error:
                    log.warning("a batch is not taken, trying again", reason=error.message, mend=error.mend)
                    if isinstance(error, SlotUnavailable) and pause > SLOT_PAUSE_SECONDS:
                        raise
                    self._held_up[chain] = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        finally:
            self._held_up.pop(chain, None)
        raise Superseded


class _ViewMetrics:
    """The metrics of one view, looked up once."""

    def __init__(self, view: str) -> None:
        self.folded = metrics.EVENTS_FOLDED.labels(view)
        self.duplicate = metrics.EVENTS_DUPLICATE.labels(view)
        self.resent = metrics.EVENTS_RESENT.labels(view)
        self.late = metrics.EVENTS_LATE.labels(view)
        self.poison = metrics.EVENTS_POISON.labels(view)
        self.stopped = metrics.PARTITIONS_STOPPED.labels(view)
        self.lateness = metrics.LATENESS_SECONDS.labels(view)
        self.seconds = metrics.FOLD_BATCH_SECONDS.labels(view)
        self.freshness = metrics.FRESHNESS_SECONDS.labels(view)
        self.view = view

    def applied(self, batch: Batch, partition: int, seconds: float) -> None:
        """Counts the records of a batch."""
        before, after, progress = batch.before, batch.after, batch.progress
        self.folded.inc(progress.folded)
        self.duplicate.inc(after.duplicates - before.duplicates)
        self.resent.inc(after.resent - before.resent)
        self.late.inc(after.late - before.late)
        self.poison.inc(after.poison - before.poison)
        self.seconds.observe(seconds)
        for late_by_ms in progress.late_by_ms:
            self.lateness.observe(late_by_ms / 1000)
        if progress.oldest_known_ms is not None:
            self.freshness.observe((now_ms() - progress.oldest_known_ms) / 1000)
        metrics.FENCE_POSITION.labels(self.view, partition).set(after.next)
