"""The audit of the archive: for the offsets that Kafka still holds, an event's table has each accepted event once, whole, and nothing else.

What is accepted, and how a row looks, is decided by the code of the writer. So this finds what was lost, doubled, changed or never deleted,
not a rule that is wrong.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.archive.columns import EXTRA, KNOWN, OFFSET, OWN, PARTITION, TOPIC, event_folder
from tidemill.archive.erasure import erased_positions
from tidemill.archive.reading import field_values, undeclared
from tidemill.archive.rows import EventTable, event_table
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import is_compacted, offset_ranges
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.records import DECODE_ERRORS
from tidemill.registry import configured_frames
from tidemill.runtime.settings import KafkaSettings

_EXAMPLES = 20
_CARRIED = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass
class ArchiveReport:
    """How many events were compared, how many positions differ, and the first of them in words. `erased`: events that were rightly absent."""

    checked: int = 0
    mismatched: int = 0
    erased: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, where: str, what: str) -> None:
        """Counts one difference."""
        self.mismatched += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{where}: {what}")


async def audit_archive(
    project: Project, store: OfflineStore, kafka: KafkaSettings, kept_since_ms: int = 0, note: Callable[[str], None] = lambda _: None
) -> ArchiveReport:
    """Compares every event's table with the event's topic. `kept_since_ms`: events that became known earlier may be deleted already.

    Raises KafkaUnavailable, TopicRecreated, OfflineUnavailable.
    """
    report = ArchiveReport()
    for event in project.events.values():
        before = report.checked
        comparison = await asyncio.to_thread(_opened, project, store, event, kept_since_ms)
        if comparison is not None:
            held = await offset_ranges(kafka, event.topic)
            comparison.compacted = await is_compacted(kafka, event.topic)
            parts = {
                target: _Part(found.begin, min(found.end, comparison.position(target.partition)), report) for target, found in held.items()
            }
            await _follow(kafka, comparison, parts)
            note(f"archive of {event.name}: {report.checked - before:,} events")
    return report


class ArchiveAudit:
    """The same for one event, piece by piece: each look goes on where the last one ended, and stays at a piece that differs until it is
    right."""

    def __init__(self, project: Project, store: OfflineStore, kafka: KafkaSettings, event: Event) -> None:
        self._project, self._store, self._kafka, self._event = project, store, kafka, event
        self._next: dict[TopicPartition, int] = {}

    async def look(self, most: int, kept_since_ms: int = 0) -> dict[int, ArchiveReport]:
        """Compares at most `most` offsets, and returns a report for each partition that Kafka has. Raises as `audit_archive`."""
        comparison = await asyncio.to_thread(_opened, self._project, self._store, self._event, kept_since_ms)
        if comparison is None:
            return {}
        held = await offset_ranges(self._kafka, self._event.topic)
        comparison.compacted = await is_compacted(self._kafka, self._event.topic)
        parts = {}
        for target, found in held.items():
            end = min(found.end, comparison.position(target.partition))
            begin = max(found.begin, self._next.get(target, 0))
            begin = found.begin if begin > end else begin  # the table or the topic goes less far than before
            parts[target] = _Part(begin, min(end, begin + max(1, most // len(held))), ArchiveReport())
        await _follow(self._kafka, comparison, parts)
        self._next = {target: part.begin if part.report.mismatched else max(part.begin, part.end) for target, part in parts.items()}
        return {target.partition: part.report for target, part in parts.items()}


class _Part(NamedTuple):
    """The offsets of a partition to compare, and who is told."""

    begin: int
    end: int
    report: ArchiveReport


def _opened(project: Project, store: OfflineStore, event: Event, kept_since_ms: int) -> _Comparison | None:
    """What to compare with; None: there is no table yet."""
    snapshot = store.find(event_folder(event.name))
    if snapshot is None:
        return None
    return _Comparison(
        event, event_table(project, event, snapshot.schema, configured_frames()), snapshot, erased_positions(store, event), kept_since_ms
    )


async def _follow(kafka: KafkaSettings, comparison: _Comparison, parts: Mapping[TopicPartition, _Part]) -> None:
    """Reads parts of a topic, and compares them slice by slice."""
    parts = {target: part for target, part in parts.items() if part.begin < part.end}
    if not parts:
        return
    async with Reader(kafka, {target: part.begin for target, part in parts.items()}) as reader:
        at = dict(reader.next)
        async for fetched in read_to_end(reader, {target: part.end for target, part in parts.items()}):
            for target, part in parts.items():
                upto = min(reader.next[target], part.end)
                if at[target] < upto:
                    records = [record for record in fetched.get(target, ()) if record.offset < upto]
                    await asyncio.to_thread(comparison.compare, target, at[target], upto, records, part.report)
                    at[target] = upto


@dataclass
class _Comparison:
    """Compares slices of a topic with one version of the table. `compacted`: the archive may have events that Kafka has deleted since."""

    event: Event
    table: EventTable
    snapshot: Snapshot
    erased: set[tuple[str, int, int]]
    kept_since_ms: int
    compacted: bool = False

    def position(self, partition: int) -> int:
        """The next offset of a partition in the table."""
        return self.snapshot.counter(counter_name(self.table.topic, partition))

    def compare(self, target: TopicPartition, start: int, end: int, records: Sequence[Any], report: ArchiveReport) -> None:
        """Compares the offsets of a partition from `start` to `end`. `records`: those that Kafka holds there."""
        wanted = pa.Table.from_batches([self.table.rows(target.partition, records)])
        where = (pc.field(PARTITION) == target.partition) & (pc.field(OFFSET) >= start) & (pc.field(OFFSET) < end)
        found = self.snapshot.scan(None, where, among=(TOPIC, [self.table.topic]), order=(OFFSET,))
        report.checked += len(wanted)
        if set(found.column_names) == set(wanted.column_names) and found.select(wanted.column_names).equals(wanted):
            return
        rows = defaultdict[int, list[dict[str, Any]]](list)
        for row in found.to_pylist():
            rows[row[OFFSET]].append(row)
        expected, held = {row[OFFSET]: row for row in wanted.to_pylist()}, {record.offset for record in records}
        for offset in sorted(rows.keys() | expected.keys()):
            for what in self._flaws(offset, expected.get(offset), rows.get(offset, []), held, report):
                report.add(f"{target.topic}[{target.partition}] at {offset}", what)

    def _flaws(
        self, offset: int, expected: dict[str, Any] | None, rows: list[dict[str, Any]], held: set[int], report: ArchiveReport
    ) -> Iterator[str]:
        place = (rows[0] if rows else expected or {})[TOPIC], (rows[0] if rows else expected or {})[PARTITION], offset
        if place in self.erased:
            report.erased += not rows
            if rows:
                yield "it was erased, and is in the archive again"
        elif expected is None and self.compacted and offset not in held:
            return
        elif expected is None:
            yield "the archive has an event where the topic has none that is accepted"
        elif not rows:
            if _ms(expected[KNOWN]) >= self.kept_since_ms:
                yield "the archive lacks the event"
        elif len(rows) > 1:
            yield f"the archive has the event {len(rows)} times"
        elif differing := _differing(self.event, expected, rows[0]):
            yield f"differs in {', '.join(differing)}"


def _differing(event: Event, expected: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """The names of what is not the same in two rows of one event; a value may lie in a column in the one and in `_extra` in the other."""
    own = [name for name in OWN.names if name != EXTRA and expected[name] != row[name]]
    mine, other = _content(event, expected), _content(event, row)
    return own + [name for name in sorted(mine.keys() | other.keys()) if not _same(mine.get(name), other.get(name))]


def _content(event: Event, row: dict[str, Any]) -> dict[str, Any]:
    """What an event carries; undeclared values as the publisher's text."""
    if event.forms:
        fields = {name: column[0].as_py() for name, column in field_values(event, pa.Table.from_pylist([row]), event.fields).items()}
        return fields | {f"{EXTRA}.{key}": text for key, text in undeclared(event, row[EXTRA]).items()}
    carried = _CARRIED.decode(row[EXTRA]) if row[EXTRA] else {}
    return carried | {name: value for name, value in row.items() if name not in OWN.names and value is not None}


def _same(mine: Any, other: Any) -> bool:
    if isinstance(mine, msgspec.Raw) == isinstance(other, msgspec.Raw):
        return bytes(mine) == bytes(other) if isinstance(mine, msgspec.Raw) else (type(mine), repr(mine)) == (type(other), repr(other))
    text, value = (mine, other) if isinstance(mine, msgspec.Raw) else (other, mine)
    try:
        return repr(msgspec.json.decode(text, type=type(value))) == repr(value)
    except DECODE_ERRORS:
        return False


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
