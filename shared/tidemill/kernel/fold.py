"""Folding one partition of a view topic, record by record, in offset order.

Feature computation, audit, training sets and replay all fold through `PartitionFold`, so they all skip the same records. The rules depend
on the log alone. Each record takes these steps, up to the first that applies:

1. Its key says since when the view is fed (`since_of`), and it has no usable value: the fence keeps that moment.
2. It cannot be decoded: it is poison, and refused.
3. Its source position is not above the last position seen from that source partition: ingestion sent it twice, and it is skipped.
4. The log had a record of its entity with its id lately (recent.py), whatever became of that one: it is a publisher's duplicate, and skipped.
5. Its time lies beyond the horizon of its entity, and it does not erase it: it is too late, and refused.
6. Its id is one of the entity's last ids: it is a publisher's duplicate too.
7. It erases its entity: all events of the entity before it are forgotten, whatever their times; their ids are not.
8. It is folded.

Every refused record becomes a dead letter. The fence counts the records of steps 2 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import msgspec

from tidemill.checksums import proof_of
from tidemill.declarations import FeatureView
from tidemill.errors import AbsentColumns
from tidemill.kernel.fences import Fence
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import Applied, ViewKernel
from tidemill.records import DECODE_ERRORS, ViewEvent, since_of
from tidemill.typed_values import absent_fields, view_decoder


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """A record of a view topic, decoded. `record`: None when it cannot be used; `proof`: CRC-32 of key and value (`checksums.proof_of`)."""

    offset: int
    key: bytes
    proof: int
    record: ViewEvent | None


@cache
def typed_decoder(view: FeatureView) -> msgspec.json.Decoder[ViewEvent]:
    """The decoder of a view's records (see typed_values.view_decoder)."""
    return view_decoder(_fields(view))


def _fields(view: FeatureView) -> dict[str, Any]:
    return {name: view.source.fields[name] for name in view.value_fields}


def entry_decoder(view: FeatureView) -> Callable[[int, bytes | None, bytes | None], LogEntry]:
    """A function that decodes (offset, key, value) of a view's topic. Keys are UTF-8.

    The function raises AbsentColumns for a record that was written before the view folded its present columns. It raises nothing else.
    """
    decode = typed_decoder(view).decode

    def entry(offset: int, key: bytes | None, value: bytes | None) -> LogEntry:
        try:
            (key or b"").decode()  # the offline store keeps keys as text
            record = decode(value or b"") if key is not None else None
        except DECODE_ERRORS:
            record = None
            if absent := absent_fields(value or b"", _fields(view)):
                raise AbsentColumns(view.name, absent, offset + 1) from None
        return LogEntry(offset, key or b"", proof_of(key, value), record)

    return entry


_NEVER_MS = 2**63


class RefusedEntry(NamedTuple):
    """A record that is never folded. `newest_ms`: time of the entity's newest event, for a record that is too late."""

    reason: Literal["late", "poison"]
    entry: LogEntry
    newest_ms: int = 0


@dataclass
class Progress:
    """What one call of `advance` did. `touched`: the changed entities; `folded`: how many events it folded, those that erase included; `oldest_known_ms`: the oldest
    of their publishing times. `refused`: the refused records, in order. `late_by_ms`: for each late event, folded or refused, how many ms
    it lay before its entity's newest event."""

    touched: set[bytes] = field(default_factory=set)
    folded: int = 0
    oldest_known_ms: int | None = None
    refused: list[RefusedEntry] = field(default_factory=list)
    late_by_ms: list[int] = field(default_factory=list)


class PartitionFold:
    """The fold of one partition, from a fence on. `find(entity)` gives the state of an entity that is not among the states passed to
    `advance` (None: the entity is new). `recent`: the memory of the log, for a view that has one; a fold that does not begin at offset 0 must
    be told what the log had in the parts of its fence (`Recent.remember`)."""

    def __init__(self, kernel: ViewKernel, fence: Fence, find: Callable[[bytes], EntityState | None] = lambda _key: None) -> None:
        self.kernel = kernel
        self.recent = kernel.new_recent(fence.turns or ())
        self._find = find
        self._fence = fence
        self._next = fence.next
        self._proof = fence.proof
        self._sources = dict(fence.sources)
        self._since = fence.since_ms
        self._counts = [fence.duplicates, fence.resent, fence.late, fence.poison]

    @classmethod
    def start(cls, kernel: ViewKernel) -> PartitionFold:
        """A fold of a partition from offset 0."""
        return cls(kernel, empty_fence(kernel))

    @property
    def fence(self) -> Fence:
        """The fence after all entries so far."""
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
            since=self._since or msgspec.UNSET,
            turns=msgspec.UNSET if self.recent is None else self.recent.turns or msgspec.UNSET,
            until=self._fence.until if self._next < self._fence.until else 0,
        )

    def advance(self, entries: Sequence[LogEntry], states: dict[bytes, EntityState]) -> Progress:
        """Folds entries into `states`, by entity, and adds the missing states. The entries start at the fence, in order of offset."""
        progress, folded, oldest_known_ms = Progress(), 0, _NEVER_MS
        apply, find, new_state, sources, counts = self.kernel.apply, self._find, self.kernel.new_state, self._sources, self._counts
        touch, in_order, recent, repeats = progress.touched.add, Applied.FOLDED, self.recent, False
        for entry in entries:
            record = entry.record
            if record is None and (since_ms := since_of(entry.key)) is not None:
                self._since = max(self._since, since_ms)
                continue
            if record is None:
                counts[3] += 1
                progress.refused.append(RefusedEntry("poison", entry))
                continue
            key = entry.key
            if recent is not None:
                if record.known >= recent.turn_ms:
                    recent.turn(record.known, entry.offset)
                repeats = record.id is not None and recent.again(key, record.id)
            partition, offset = record.source
            if offset <= sources.get(partition, -1):
                counts[1] += 1
                continue
            sources[partition] = offset
            if repeats:
                counts[0] += 1
                continue
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
        """Notes an event that is late or a duplicate. Returns whether it changed its entity."""
        if outcome is Applied.ERASED:
            return True
        if outcome is Applied.DUPLICATE:
            self._counts[0] += 1
            return False
        assert entry.record is not None  # `advance` refuses an entry without a record
        progress.late_by_ms.append(newest_ms - entry.record.time)
        if outcome is Applied.LATE:
            self._counts[2] += 1
            progress.refused.append(RefusedEntry("late", entry, newest_ms))
        return outcome is Applied.CORRECTED


def empty_fence(kernel: ViewKernel, until: int = 0) -> Fence:
    """The fence of a partition before its first record. `until`: the offset from which its values may be served."""
    return Fence(0, kernel.definition, kernel.view.partitions, until=until)


def entities_of(entries: Iterable[LogEntry]) -> set[bytes]:
    """The entities that a fold of these entries may touch."""
    return {entry.key for entry in entries if entry.record is not None}
