"""Which records reach a handler: unbroken chains of slices, from the positions of a store. It decides; a `Log` talks to Kafka.

A `Chain` is our own count of delivered records. A rebalance may lose slices, and a consumer may skip an oversized batch or reset a
position. Then the next slice does not follow: the chain breaks, and the partition is placed again from the store's position. While the
store is away nothing is delivered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP

from tidemill.errors import StoreError, Unavailable
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.streams.dead_letters import SourceRecord

log = get_logger(__name__)

SLICE_RECORDS = 2_000  # a fifth faster than 1,000; longer scripts would block readers of the store for longer
ASK_AGAIN_SECONDS = 1.0


class Chain:
    """An unbroken run of one partition's records. `next`: the offset of its next record; once `broken` it delivers no more."""

    __slots__ = ("broken", "next")

    def __init__(self, start: int) -> None:
        self.next = start
        self.broken = False


class FetchedRecord(SourceRecord, Protocol):
    """A record with its topic and partition."""

    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def partition(self) -> int:
        """Its partition."""


class Slice(NamedTuple):
    """Consecutive records of one partition from offset `start` on, without a gap; at least one."""

    chain: Chain
    start: int
    records: Sequence[SourceRecord]


Held = Callable[[Collection[TP]], Awaitable[Mapping[TP, range]]]
"""The offsets that the log holds now, for each partition."""

Positions = Callable[[Collection[TP], Held], Awaitable[Mapping[TP, int]]]
"""The next offset of each partition. A partition left out is asked for again soon. Ask the store first, then the log: both grow, and the
store must not seem to be ahead of the log."""


class Log(Protocol):
    """What delivery needs of a consumer. Every method may raise KafkaError or TimeoutError."""

    async def held(self, partitions: Collection[TP]) -> Mapping[TP, range]:
        """See `Held`."""

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """Go on with these offsets."""

    async def fetch(self, partitions: set[TP], wait_seconds: float) -> Mapping[TP, Sequence[FetchedRecord]]:
        """New records of these partitions, in order of their offsets."""


class Delivery:
    """The chains of all partitions. `done`: the offset after the last handled record, for lag monitors.

    `broken`: called when all chains are broken; `positions` is then asked for every partition anew.
    """

    def __init__(self, positions: Positions, broken: Callable[[], None]) -> None:
        self.done: dict[TP, int] = {}
        self._positions = positions
        self._broken = broken
        self._chains: dict[TP, Chain] = {}
        self._left_out: dict[TP, float] = {}  # partition -> when to ask for its position again
        self._breaks = 0

    @property
    def placed(self) -> set[TP]:
        """The partitions with an unbroken chain."""
        return {tp for tp, chain in self._chains.items() if not chain.broken}

    def break_chain(self, tp: TP) -> None:
        """Place a partition again, from the store's position."""
        self._chains[tp].broken = True

    def break_all(self) -> None:
        """Place every partition again: after a rebalance, or when the position of the consumer is unknown."""
        for tp in self._chains:
            self.break_chain(tp)
        self._chains.clear()
        self._left_out.clear()
        self.done.clear()
        self._breaks += 1
        self._broken()

    async def slices(self, assigned: set[TP], source: Log, now: float, wait_seconds: float) -> Iterator[tuple[TP, Slice]] | None:
        """The records of one fetch, cut into slices, partitions taking turns; None when nothing can be delivered now.

        `now`: monotonic seconds. Use the iterator only while the assignment stays the same.
        """
        try:
            await self._place(assigned, source, now)
            chains = {tp: chain for tp, chain in self._chains.items() if not chain.broken}
            if not chains:
                return None
            fetched = await source.fetch(set(chains), wait_seconds)
        except (KafkaError, TimeoutError, Unavailable, StoreError) as error:
            log.warning("nothing can be delivered, trying again", reason=str(error) or repr(error))
            self.break_all()
            return None
        return _take_turns({TP(*tp): _slices(chains[tp], records) for tp, records in fetched.items() if records})

    async def _place(self, assigned: set[TP], source: Log, now: float) -> None:
        """Start a chain for every assigned partition without one."""
        missing = sorted(tp for tp in assigned - self.placed if self._left_out.get(tp, now) <= now)
        if not missing:
            return
        breaks = self._breaks
        positions = await self._positions(missing, source.held)
        if positions:
            await source.seek_all(positions)
        if breaks == self._breaks:
            self._chains |= {tp: Chain(start) for tp, start in positions.items()}
            self._left_out |= {tp: now + ASK_AGAIN_SECONDS for tp in missing if tp not in positions}
        else:
            self._broken()

    def handled(self, tp: TP, piece: Slice) -> None:
        """Note that the handler has finished a slice."""
        if not piece.chain.broken:
            self.done[tp] = piece.start + len(piece.records)


def _slices(chain: Chain, records: Sequence[FetchedRecord]) -> Iterator[Slice]:
    """Cut fetched records into slices that continue the chain; break it when they do not."""
    for i in range(0, len(records), SLICE_RECORDS):
        if chain.broken:
            return
        part = records[i : i + SLICE_RECORDS]
        start, last = part[0].offset, part[-1].offset
        if start != chain.next or last - start != len(part) - 1:
            where = {"topic": part[0].topic, "partition": part[0].partition}
            log.error("records are missing from what Kafka delivered", **where, wanted=chain.next, got=start)
            metrics.DELIVERY_GAPS.labels(part[0].topic).inc()
            chain.broken = True
            return
        chain.next = last + 1
        yield Slice(chain, start, part)


def loads(pieces: Iterator[tuple[TP, Slice]]) -> Iterator[list[tuple[TP, Slice]]]:
    """Groups slices into loads of at most SLICE_RECORDS records: handing over one load costs as much as folding some fifty records.

    A load has at most one slice of each partition, because of each partition only the last slice of a fetch may be smaller.
    """
    load, count = list[tuple[TP, Slice]](), 0
    for tp, piece in pieces:
        if load and count + len(piece.records) > SLICE_RECORDS:
            yield load
            load, count = [], 0
        load.append((tp, piece))
        count += len(piece.records)
    if load:
        yield load


def _take_turns(sources: dict[TP, Iterator[Slice]]) -> Iterator[tuple[TP, Slice]]:
    while sources:
        for tp, source in list(sources.items()):
            piece = next(source, None)
            if piece is None:
                del sources[tp]
            else:
                yield tp, piece
