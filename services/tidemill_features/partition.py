"""One partition of a view in a worker: the fold, the fence that the store must have, and the cached entities.

Pure logic. A `Partition` lives as long as its chain of slices. When the store has another fence, or a record is missing, the worker drops
it and makes another one from the store's fence. So a fold whose write was refused is never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tidemill.errors import CorruptState, FenceConflict, Rebuilding, TopicMismatch, TopicRecreated
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold, Progress, empty_fence, entities_of
from tidemill.kernel.packed import EntityState, Patch
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import ViewKernel
from tidemill.records import KafkaRecord

_STATE_BYTES, _ENTRY_BYTES = 1_000, 200  # memory of an entity besides its value, roughly: as an EntityState, and as bytes


class Batch(NamedTuple):
    """The result of folding a slice: the new fence, and for every changed entity its new value, or the changed pieces of it.

    `progress`: the numbers of folded records, the refused ones, and how late events came.
    """

    before: Fence
    after: Fence
    fence: bytes
    values: dict[bytes, bytes | Patch]
    progress: Progress


class Partition:
    """Folds slices that follow each other, from the stored fence (None: no fence yet) on. `stored`: the fence that the store must have.

    `log_end`: where the topic ended when the partition began. Without a fence, its values are not served before the fold reaches it.
    Raises CorruptState, TopicMismatch, and Rebuilding while `tidemill rebuild` writes the partition.
    """

    def __init__(
        self,
        kernel: ViewKernel,
        decode: Callable[[int, bytes | None, bytes | None], LogEntry],
        number: int,
        stored: bytes | None,
        log_end: int = 0,
    ) -> None:
        self.where = f"view {kernel.view.name!r} partition {number}"
        self._kernel = kernel
        self._decode = decode
        self._rebuild = _rebuild(kernel, number)
        self._fence = _checked(kernel, number, stored, self.where, log_end)
        self.stored = stored or self._fence.encode()
        self._from = self._fence.next  # where the next slice has to start
        self._cache = StateCache(kernel)
        self._fold = PartitionFold(kernel, self._fence, self._cache.take)
        self._loaded: dict[bytes, EntityState] = {}

    @property
    def recent(self) -> Recent | None:
        """The memory of the log, for a view that has one. Before the first slice it has to be told what the log had."""
        return self._fold.recent

    @property
    def next(self) -> int:
        """The next offset to fold."""
        return self._fence.next

    def start(self, log: range) -> int:
        """Where to begin reading, given the offsets that the topic holds: at the last applied record, to compare it with the fence's proof.

        Raises TopicRecreated when the topic does not hold the offsets that the fence needs.
        """
        if self.next > log.stop:
            raise _recreated(self.where, f"the topic ends at offset {log.stop}, but the store has applied everything below {self.next}")
        if self.next < log.start:
            raise TopicRecreated(
                f"{self.where}: the topic begins at offset {log.start}, but the store needs the records from {self.next} on",
                mend=f"if the offline store has them, {self._rebuild}; else restore the topic's records",
            )
        self._from = max(self.next - 1, log.start)
        return self._from

    def accept(self, start: int, records: Sequence[KafkaRecord]) -> list[LogEntry]:
        """The entries of a slice that are not folded yet.

        Raises FenceConflict when the slice does not follow the one before, TopicRecreated when the last applied record has not the
        checksum in the fence.
        """
        if start != self._from:  # also when the first slice, with the record to compare, was lost
            raise FenceConflict(self.where, expected=start, found=self._from)
        decode = self._decode
        entries = [decode(record.offset, record.key, record.value) for record in records]
        self._from = start + len(records)
        if start == self.next:
            return entries
        if entries[0].proof != self._fence.proof:
            raise _recreated(self.where, f"the record at offset {start} is not the one that was applied")
        return entries[1:]

    def missing(self, entries: Sequence[LogEntry]) -> list[bytes]:
        """The entities of these entries that are not cached."""
        kept = self._cache.kept
        return [entity for entity in entities_of(entries) if entity not in kept]

    def admit(self, fence: bytes | None, values: Mapping[bytes, bytes]) -> None:
        """Takes loaded entities. Raises FenceConflict when they came with another fence, CorruptState when one is damaged."""
        if fence != self.stored:
            raise FenceConflict(self.where, expected=self.next, found=_position(fence))
        for entity, value in values.items():
            try:
                self._loaded[entity] = self._kernel.decode(value)
            except CorruptState as error:
                raise CorruptState(f"{self.where}, entity {entity!r}: {error.message}", mend=self._rebuild) from error

    def advance(self, entries: Sequence[LogEntry]) -> Batch:
        """Folds entries whose entities are all loaded. The store has the result only once `applied` is called."""
        states, self._loaded = self._loaded, {}
        progress = self._fold.advance(entries, states)
        after, write, values = self._fold.fence, self._kernel.write, {}
        for entity, state in states.items():
            value = write(state)
            self._cache.put(entity, state, value)
            if entity in progress.touched:
                values[entity] = value
        return Batch(self._fence, after, after.encode(), values, progress)

    def applied(self, batch: Batch, cache_bytes: int) -> None:
        """Notes that the store has the batch. The cache keeps about `cache_bytes` of the most recently used entities."""
        self._fence, self.stored = batch.after, batch.fence
        self._cache.trim(cache_bytes)


class StateCache:
    """The entities of a partition.

    A value without closed tiles is cached as its stored bytes: decoding them again costs less than visiting some fifty objects scattered in
    memory. A value with closed tiles is cached as an EntityState. `kept`: the least recently used entity first.
    """

    def __init__(self, kernel: ViewKernel) -> None:
        self.kept: dict[bytes, bytes | EntityState] = {}
        self._reopen = kernel.reopen
        self._bytes = 0

    def take(self, entity: bytes) -> EntityState | None:
        """Removes and returns the state of an entity."""
        found = self.kept.pop(entity, None)
        if found is None:
            return None
        self._bytes -= _size(found)
        return self._reopen(found) if isinstance(found, bytes) else found

    def put(self, entity: bytes, state: EntityState, written: bytes | Patch) -> None:
        """Adds an entity that is not in the cache. `written`: its new value, or the changed pieces."""
        kept = state if isinstance(written, Patch) or any(state.rows) else written
        self.kept[entity] = kept
        self._bytes += _size(kept)

    def trim(self, limit_bytes: int) -> None:
        """Drops entities above the limit, the least recently used first."""
        dropped, beyond = [], self._bytes - limit_bytes
        for entity, kept in self.kept.items():
            if beyond <= 0:
                break
            dropped.append(entity)
            beyond -= _size(kept)
        for entity in dropped:
            self._bytes -= _size(self.kept.pop(entity))


def _size(kept: bytes | EntityState) -> int:
    return len(kept) + _ENTRY_BYTES if isinstance(kept, bytes) else kept.length + _STATE_BYTES


def _checked(kernel: ViewKernel, number: int, stored: bytes | None, where: str, log_end: int) -> Fence:
    """The fence to begin from. Raises CorruptState, TopicMismatch when another definition made the stored values, Rebuilding."""
    view = kernel.view
    if number >= view.partitions:
        raise TopicMismatch(
            f"{where}: the topic has more than the {view.partitions} partitions that are declared",
            mend="declare the topic's count under a new view name: an entity's partition depends on the count",
        )
    if stored is None:
        return empty_fence(kernel, until=log_end)
    try:
        fence = Fence.decode(stored)
    except msgspec.DecodeError as error:
        raise CorruptState(f"{where}: the stored fence cannot be read: {error}", mend=_rebuild(kernel, number)) from error
    if fence.partitions != view.partitions:
        raise TopicMismatch(
            f"{where}: the store was filled with {fence.partitions} partitions, {view.partitions} are declared",
            mend="declare the old count, or give the view a new name: an entity's partition depends on the count",
        )
    if fence.definition != kernel.definition:
        raise TopicMismatch(
            f"{where}: the store was filled by another definition of this view ({fence.definition}, now {kernel.definition})",
            mend=f"restore the old definition, give the view a new name, or compute its values again: {_rebuild(kernel, number)}",
        )
    if fence.builder:
        raise Rebuilding([view.name])
    return fence


def _rebuild(kernel: ViewKernel, number: int) -> str:
    return f"run: tidemill rebuild {kernel.view.name} --partition {number}"


def _recreated(where: str, what: str) -> TopicRecreated:
    return TopicRecreated(
        f"{where}: {what}: the topic was truncated, expired or created anew",
        mend=f"restore the topic's records, or delete the fence of {where}: then the worker folds all records that the topic holds now",
    )


def _position(stored: bytes | None) -> int | None:
    try:
        return None if stored is None else Fence.decode(stored).next
    except msgspec.DecodeError:
        return None
