"""The audit of the archive: silent on a right table, and it names each way in which one can be wrong."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.archive.trips import project_of, trip
from tests.offline.lake import send

from tidemill.archive.erasure import Wanted, erase
from tidemill.archive.retention import ArchiveSettings
from tidemill.archive.rows import event_table
from tidemill.archive.writer import ArchiveWriter
from tidemill.declarations.project import Project
from tidemill.kafka.topics import ensure_topics
from tidemill.offline.mirror import Flush
from tidemill.offline.store import OfflineStore
from tidemill.proof.archive_audit import ArchiveAudit, ArchiveReport, audit_archive
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

pytestmark = pytest.mark.integration
COUNT = 60


class Case:
    """A topic, and its archive as the writer writes it."""

    def __init__(self, kafka: str, name: str, folder: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=kafka)
        self.store = OfflineStore(folder)
        self.project = project_of(name)
        self.trips = self.project.events["trips"]

    async def archive(self, project: Project, position: int) -> None:
        """Run a writer until it has reached a position of partition 0."""
        writer = ArchiveWriter(
            self.store, project, project.events["trips"], self.kafka, HealthBoard(), Flush(0.05), ArchiveSettings(days=None)
        )
        running = asyncio.create_task(writer.run())
        while writer.positions.get(0) != position:
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def audit(self, kept_since_ms: int = 0) -> ArchiveReport:
        """The audit."""
        return await audit_archive(self.project, self.store, self.kafka, kept_since_ms)


async def filled(kafka: str, name: str, folder: Path) -> Case:
    """A case with COUNT records in partition 0, of which one in ten is refused."""
    case = Case(kafka, name, folder)
    await ensure_topics(case.kafka, topic_specs(case.project))
    values = [b"junk" if i % 10 == 3 else trip(i, tip=i / 8, colour="red") for i in range(COUNT)]
    await send(kafka, {(case.trips.topic, 0): [(b"k", value) for value in values]})
    await case.archive(case.project, COUNT)
    return case


async def test_a_right_archive(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """Nothing differs: not after a field was declared, after erasure, nor for what retention may have deleted."""
    case = await filled(kafka, topic_prefix, tmp_path)
    report = await case.audit()
    assert (report.checked, report.mismatched, report.examples) == (54, 0, [])
    case.project = project_of(topic_prefix, later=True)
    await send(kafka, {(case.trips.topic, 0): [(b"k", trip(99, tip=2))]})
    await case.archive(case.project, COUNT + 1)
    assert (await case.audit()).examples == []
    case.project = project_of(topic_prefix)
    assert (await case.audit()).examples == []
    assert erase(case.store, Wanted.parse(case.trips, "zone=z1")) > 0
    report = await case.audit()
    assert (report.erased > 0, report.examples) == (True, [])


async def test_each_flaw_is_named(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """A lost row, one that is there twice, one too many, a changed value, one that came back after its erasure."""
    case = await filled(kafka, topic_prefix, tmp_path)
    table = event_table(case.project, case.trips, case.store.snapshot("events/trips").schema)
    log = case.store.topic_table(table)
    rows = case.store.snapshot("events/trips").scan(order=("_offset",)).select(table.schema.names)
    at = {row["_offset"]: row for row in rows.to_pylist()}
    erase(case.store, Wanted.parse(case.trips, "id=t9"))
    log.delete("_offset IN (5, 6, 7)")
    extra = json.dumps(json.loads(at[7]["_extra"]) | {"colour": "blue"})
    log.append(
        pa.Table.from_pylist(
            [at[4], at[9], at[4] | {"_offset": 13}, at[6] | {"fare": 1.0000000001}, at[7] | {"_extra": extra}], table.schema
        ),
        {},
    )
    place = f"{case.trips.topic}[0] at"
    assert (await case.audit()).examples == [
        f"{place} 4: the archive has the event 2 times",
        f"{place} 5: the archive lacks the event",
        f"{place} 6: differs in fare",
        f"{place} 7: differs in colour",
        f"{place} 9: it was erased, and is in the archive again",
        f"{place} 13: the archive has an event where the topic has none that is accepted",
    ]
    assert len((await case.audit(kept_since_ms=2**52)).examples) == 5


async def test_piece_by_piece(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """Each look goes on where the last one ended, with what came meanwhile; it stays at a piece that differs until that is right."""
    case = await filled(kafka, topic_prefix, tmp_path)
    audit = ArchiveAudit(case.project, case.store, case.kafka, case.trips)

    async def look() -> tuple[int, int]:
        report = (await audit.look(20 * case.trips.partitions))[0]
        return report.checked, report.mismatched

    assert [await look() for _ in range(4)] == [(18, 0), (18, 0), (18, 0), (0, 0)]
    await send(kafka, {(case.trips.topic, 0): [(b"k", trip(i)) for i in range(COUNT, COUNT + 30)]})
    await case.archive(case.project, COUNT + 30)
    log = case.store.topic_table(event_table(case.project, case.trips, case.store.snapshot("events/trips").schema))
    lost = case.store.snapshot("events/trips").scan(log.spec.schema.names, pc.field("_offset") == 62, order=())
    log.delete("_offset = 62")
    assert [await look() for _ in range(2)] == [(20, 1), (20, 1)]
    log.append(lost, {})
    assert [await look() for _ in range(3)] == [(20, 0), (10, 0), (0, 0)]
