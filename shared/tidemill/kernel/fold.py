"""Folding one partition of a view topic, record by record, in offset order.

Feature computation, audit, training sets and replay all fold through `PartitionFold`, so what is skipped online is skipped offline.
The rules depend on the log alone: a record that cannot be decoded is poison and refused; one whose source position is not above the last
one seen from that source partition was sent twice by ingestion and is skipped; the entity's own state refuses an event that is too late
and skips a publisher's duplicate. What is refused becomes a dead letter; all of it is counted in the fence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from tidemill.checksums import proof_of
from tidemill.declarations import FeatureView
from tidemill.kernel.fences import Fence
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import Applied, ViewKernel
from tidemill.records import DECODE_ERRORS, view_decoder


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """A record of a view topic, decoded: `record` has time, known, source, values and id, or is None when it cannot be used.

    `proof` is the CRC-32 of key and value (fences.proof_of).
    """

    offset: int
    key: bytes
    proof: int
    record: Any


@cache
def typed_decoder(view: FeatureView) -> msgspec.json.Decoder[Any]:
    """The decoder of a view's records (see records.view_decoder)."""
    return view_decoder({name: view.source.fields[name] for name in view.value_fields})


def entry_decoder(view: FeatureView) -> Callable[[int, bytes | None, bytes | None], LogEntry]:
    """A function that decodes (offset, key, value) of a view's topic; it never raises. Keys are UTF-8."""
    decode = typed_decoder(view).decode

    def entry(offset: int, key: bytes | None, value: bytes | None) -> LogEntry:
        try:
            (key or b"").decode()  # the offline store keeps keys as text
            record = decode(value or b"") if key is not None else None
        except DECODE_ERRORS:
            record = None
        return LogEntry(offset, key or b"", proof_of(key, value), record)

    return entry


_NEVER_MS = 2**63


class RefusedEntry(NamedTuple):
    """A record that no state will ever hold. `newest_ms`: the entity's newest event, for one that is too late."""

    reason: Literal["late", "poison"]
    entry: LogEntry
    newest_ms: int = 0


@dataclass
class Progress:
    """What one call of `advance` did: entities changed, events folded, and the oldest of their publishing times in ms; the records
    refused, in order; and for each late event, corrected or refused, how far it lay behind its entity's newest."""

    touched: set[bytes] = field(default_factory=set)
    folded: int = 0
    oldest_known_ms: int | None = None
    refused: list[RefusedEntry] = field(default_factory=list)
    late_by_ms: list[int] = field(default_factory=list)


class PartitionFold:
    """The fold of one partition from a fence on. `find` gives the state of an entity that is met for the first time in a call of `advance`
    and not among its states (None: it is a new one)."""

    def __init__(self, kernel: ViewKernel, fence: Fence, find: Callable[[bytes], EntityState | None] = lambda _key: None) -> None:
        self.kernel = kernel
        self._find = find
        self._fence = fence
        self._next = fence.next
        self._proof = fence.proof
        self._sources = dict(fence.sources)
        self._counts = [fence.duplicates, fence.resent, fence.late, fence.poison]

    @classmethod
    def start(cls, kernel: ViewKernel) -> PartitionFold:
        """A fold of a partition from its very beginning."""
        return cls(kernel, empty_fence(kernel))

    @property
    def fence(self) -> Fence:
        """The fence after everything folded so far."""
        duplicates, resent, late, poison = self._counts
        return msgspec.structs.replace(
            self._fence,
            next=self._next,
            proof=self._proof,
            sources=dict(self._sources),
            duplicates=duplicates,
            resent=resent,
            late=late,
            poison=poison,
            until=self._fence.until if self._next < self._fence.until else 0,
        )

    def advance(self, entries: Sequence[LogEntry], states: dict[bytes, EntityState]) -> Progress:
        """Folds entries that start at the fence, in order, into `states` by entity, to which it adds those that are missing."""
        progress, folded, oldest_known_ms = Progress(), 0, _NEVER_MS
        apply, find, new_state, sources, counts = self.kernel.apply, self._find, self.kernel.new_state, self._sources, self._counts
        touch, in_order = progress.touched.add, Applied.FOLDED
        for entry in entries:
            record = entry.record
            if record is None:
                counts[3] += 1
                progress.refused.append(RefusedEntry("poison", entry))
                continue
            partition, offset = record.source
            if offset <= sources.get(partition, -1):
                counts[1] += 1
                continue
            sources[partition] = offset
            key = entry.key
            state = states.get(key)
            if state is None:
                state = states[key] = find(key) or new_state()
            outcome = apply(state, record.time, record.id, record.values)
            if outcome is not in_order and not self._late(outcome, entry, state.newest, progress):
                continue
            touch(key)
            folded += 1
            if record.known < oldest_known_ms:  # noqa: PLR1730 - a call costs more than the rest of this line
                oldest_known_ms = record.known
        if entries:
            self._next, self._proof = entries[-1].offset + 1, entries[-1].proof
        progress.folded, progress.oldest_known_ms = folded, oldest_known_ms if folded else None
        return progress

    def _late(self, outcome: Applied, entry: LogEntry, newest_ms: int, progress: Progress) -> bool:
        """Notes an event that came late or a second time; whether it was folded nevertheless."""
        if outcome is Applied.DUPLICATE:
            self._counts[0] += 1
            return False
        progress.late_by_ms.append(newest_ms - entry.record.time)
        if outcome is Applied.LATE:
            self._counts[2] += 1
            progress.refused.append(RefusedEntry("late", entry, newest_ms))
        return outcome is Applied.CORRECTED


def empty_fence(kernel: ViewKernel, until: int = 0) -> Fence:
    """The fence of a partition of which nothing has been applied. `until`: the position from which its values may be served."""
    return Fence(0, kernel.definition, kernel.view.partitions, until=until)


def entities_of(entries: Iterable[LogEntry]) -> set[bytes]:
    """The entities that a fold of these entries may touch."""
    return {entry.key for entry in entries if entry.record is not None}
