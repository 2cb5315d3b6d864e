"""The audit of the archive: for the offsets that Kafka still holds, an event's table has each accepted event once, whole, and nothing else.

What is accepted, and how a row looks, is decided by the code of the writer. So this finds what was lost, doubled, changed or never deleted,
not a rule that is wrong.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.archive.columns import EXTRA, KNOWN, OFFSET, OWN, PARTITION, TOPIC, event_folder
from tidemill.archive.erasure import erased_positions
from tidemill.archive.rows import EventTable, event_table
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import UnknownTable
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.store import OfflineStore, Snapshot, counter_name
from tidemill.records import DECODE_ERRORS
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
        try:
            snapshot = await asyncio.to_thread(store.snapshot, event_folder(event.name))
        except UnknownTable:
            continue
        comparison = _Comparison(
            report, event_table(project, event, snapshot.schema), snapshot, erased_positions(store, event), kept_since_ms
        )
        await _follow(kafka, event, comparison)
        note(f"archive of {event.name}: {report.checked - before:,} events")
    return report


async def _follow(kafka: KafkaSettings, event: Event, comparison: _Comparison) -> None:
    """Reads what Kafka holds below the positions of the table, and compares it slice by slice."""
    held = await offset_ranges(kafka, event.topic)
    ends = {target: min(found.end, comparison.position(target.partition)) for target, found in held.items()}
    starts = {target: held[target].begin for target, end in ends.items() if held[target].begin < end}
    if not starts:
        return
    async with Reader(kafka, starts) as reader:
        at = dict(reader.next)
        async for fetched in read_to_end(reader, {target: ends[target] for target in starts}):
            for target, end in reader.next.items():
                upto = min(end, ends[target])
                if at[target] < upto:
                    records = [record for record in fetched.get(target, ()) if record.offset < upto]
                    await asyncio.to_thread(comparison.compare, target, at[target], upto, records)
                    at[target] = upto


@dataclass
class _Comparison:
    """Compares slices of a topic with one version of the table."""

    report: ArchiveReport
    table: EventTable
    snapshot: Snapshot
    erased: set[tuple[str, int, int]]
    kept_since_ms: int

    def position(self, partition: int) -> int:
        """The next offset of a partition in the table."""
        return self.snapshot.counter(counter_name(self.table.topic, partition))

    def compare(self, target: TopicPartition, start: int, end: int, records: Sequence[Any]) -> None:
        """Compares the offsets of a partition from `start` to `end`. `records`: those that Kafka holds there."""
        wanted = pa.Table.from_batches([self.table.rows(target.partition, records)])
        where = (pc.field(PARTITION) == target.partition) & (pc.field(OFFSET) >= start) & (pc.field(OFFSET) < end)
        found = self.snapshot.scan(None, where, among=(TOPIC, [self.table.topic]), order=(OFFSET,))
        self.report.checked += len(wanted)
        if set(found.column_names) == set(wanted.column_names) and found.select(wanted.column_names).equals(wanted):
            return
        rows = defaultdict[int, list[dict[str, Any]]](list)
        for row in found.to_pylist():
            rows[row[OFFSET]].append(row)
        expected = {row[OFFSET]: row for row in wanted.to_pylist()}
        for offset in sorted(rows.keys() | expected.keys()):
            for what in self._flaws(offset, expected.get(offset), rows.get(offset, [])):
                self.report.add(f"{target.topic}[{target.partition}] at {offset}", what)

    def _flaws(self, offset: int, expected: dict[str, Any] | None, rows: list[dict[str, Any]]) -> Iterator[str]:
        place = (rows[0] if rows else expected or {})[TOPIC], (rows[0] if rows else expected or {})[PARTITION], offset
        if place in self.erased:
            self.report.erased += not rows
            if rows:
                yield "it was erased, and is in the archive again"
        elif expected is None:
            yield "the archive has an event where the topic has none that is accepted"
        elif not rows:
            if _ms(expected[KNOWN]) >= self.kept_since_ms:
                yield "the archive lacks the event"
        elif len(rows) > 1:
            yield f"the archive has the event {len(rows)} times"
        elif differing := _differing(expected, rows[0]):
            yield f"differs in {', '.join(differing)}"


def _differing(expected: dict[str, Any], row: dict[str, Any]) -> list[str]:
    """The names of what is not the same in two rows of one event; a value may lie in a column in the one and in `_extra` in the other."""
    own = [name for name in OWN.names if name != EXTRA and expected[name] != row[name]]
    mine, other = _content(expected), _content(row)
    return own + [name for name in sorted(mine.keys() | other.keys()) if not _same(mine.get(name), other.get(name))]


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """What an event carries; undeclared values as the publisher's text."""
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
