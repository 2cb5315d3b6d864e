"""What the online store must hold: the plain fold of every log there ever was, after each of its records."""

from __future__ import annotations

import base64
from typing import NamedTuple

import msgspec
from faust.types import TP
from tests.simulation.broker import Log, Row
from tests.simulation.project import DECODE, KERNEL

from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import EntityState

Values = dict[bytes, bytes]


class Known(NamedTuple):
    """What belongs to a fence: the entities, and the records refused on the way, by partition, offset and value."""

    fence: Fence
    values: Values
    refused: tuple[tuple[int, int, str], ...] = ()


class Oracle:
    """Folds each record as it is written, one at a time, and keeps the outcome."""

    def __init__(self) -> None:
        self._folds: dict[TP, tuple[PartitionFold, dict[bytes, EntityState], Known]] = {}
        self._after: dict[tuple[int, int, int], Known] = {}
        self._seen: dict[tuple[int, bytes], Known | None] = {}

    def note(self, log: Log, row: Row) -> None:
        """A record was appended."""
        if row.offset == 0:
            self._folds[log.tp] = _nothing()
        fold, states, known = self._folds[log.tp]
        progress = fold.advance([DECODE(row.offset, row.key, row.value)], states)
        values = known.values | {entity: KERNEL.encode(states[entity]) for entity in progress.touched}
        refused = known.refused
        if progress.refused:
            refused += ((log.tp.partition, row.offset, base64.b64encode(row.value).decode()),)
        known = Known(fold.fence, values, refused)
        self._folds[log.tp] = fold, states, known
        self._after[log.tp.partition, known.fence.next, known.fence.proof] = known

    def begin_again(self, log: Log) -> None:
        """A log lost its tail: what follows is folded after what is left."""
        self._folds[log.tp] = _nothing()
        for row in log.rows:
            self.note(log, row)

    def known(self, partition: int, stored: bytes) -> Known | None:
        """What belongs to a stored fence; None when no log ever led to it."""
        if (partition, stored) not in self._seen:
            fence = msgspec.structs.replace(Fence.decode(stored), until=0, builder="")
            known = self._after.get((partition, fence.next, fence.proof)) if fence.next else _nothing()[2]
            self._seen[partition, stored] = known if known and known.fence == fence else None
        return self._seen[partition, stored]


def _nothing() -> tuple[PartitionFold, dict[bytes, EntityState], Known]:
    fold = PartitionFold.start(KERNEL)
    return fold, {}, Known(fold.fence, {})
