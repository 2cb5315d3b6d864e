"""The processes of a stack: what they run is the product's, and what they lack of the real services is said at each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from tests.simulation.broker import Row
from tests.simulation.filling.kafka import Cluster, KafkaProcess, ensure_topics
from tests.simulation.filling.lake import Archived, Lake
from tests.simulation.filling.project import NAME, PAID, STAGES, Paid, columns, folding
from tests.simulation.loop import SimLoop
from tests.simulation.network import Link
from tests.simulation.workers import Group

from tidemill.archive.columns import event_folder
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import Chunk
from tidemill.archive.load import Load
from tidemill.archive.retention import ArchiveSettings
from tidemill.catalogue.definitions import ViewVersion
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, StoreUnavailable, TidemillError
from tidemill.kafka.client import GATHERING
from tidemill.kafka.reader import Reader
from tidemill.kafka.sparse_reader import SparseReader
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.offline.mirror import Flush, Follower
from tidemill.offline.names import view_folder
from tidemill.offline.store import counter_name
from tidemill.online.keys import fence_key
from tidemill.operations.applying import Applying
from tidemill.operations.fill.job import Filled, Phase
from tidemill.records import decoder
from tidemill.runtime.supervise import supervise
from tidemill.streams.following import Following, InForce, everything_of, views_of
from tidemill.streams.topics import topic_specs, view_topic
from tidemill.testing.lake import MemoryTable
from tidemill_ingestion.app import _routing
from tidemill_ingestion.consumer import EventConsumer

FLUSH = Flush(0.5, 40)
KEPT = ArchiveSettings.model_construct(days=None)
DECLARED = STAGES[0]
NOTHING = pa.schema([])
ARCHIVE = event_folder(PAID.name)
_paid = decoder(Paid).decode


class Site(NamedTuple):
    """Where processes run: what all of them share."""

    loop: SimLoop
    draw: random.Random
    broker: Cluster
    group: Group
    tables: dict[str, MemoryTable]
    folded: Folded
    note: Callable[..., None]


class StackProcess(KafkaProcess):
    """A process of the stack, with its own way to the archive."""

    def __init__(self, site: Site, name: str) -> None:
        super().__init__(site.loop, site.draw, name, site.broker, site.group)
        self.note, self.folded = site.note, site.folded
        self.lake = Lake(self, site.tables)

    async def run(self) -> None:
        """What it does."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""
        self.spawn(self.run())

    def heal(self) -> None:
        """Its disk is well from now on."""
        self.lake.commit_seconds, self.lake.faults = 0.05, 0.0


def _told(_error: Exception) -> None:
    """Nobody looks at the board."""


class Ingestion(StackProcess):
    """Ingestion: the real `Following`, `EventConsumer` and `Router`. Its HTTP side, its watch and `tell_origins` are not there."""

    async def run(self) -> None:
        """See `StackProcess`."""
        await Following(self, DECLARED, everything_of, _told).run(self._work)  # type: ignore[arg-type]

    async def _work(self, now: InForce) -> None:
        self.note(self.name, f"works by record {now.definitions.number} of the catalogue")
        await supervise(partial(ensure_topics, self, topic_specs(now.project)), _told)
        await supervise(partial(self._route, now), _told, waited_for=(KafkaUnavailable,))

    async def _route(self, now: InForce) -> None:
        async with EventConsumer(self, now.project, self.name, now.definitions) as consumer:  # type: ignore[arg-type]
            await _routing(consumer)


class ArchiveTable(NamedTuple):
    """What a `Follower` needs of the archive's table; rows are kept as they are read, and nobody's event is refused."""

    name: str
    topic: str
    partitions: int
    schema: pa.Schema

    def rows_of(self, read: Mapping[int, Sequence[Row]]) -> list[Archived]:
        """The rows of some records."""
        return [
            Archived(row.timestamp, self.topic, partition, row.offset, _paid(row.value)) for partition, rows in read.items() for row in rows
        ]


class ArchiveFollower(Follower):
    """As `ArchiveWriter`, whose topic is never made anew: it looks at no record a second time. Nothing is forgotten."""

    def __init__(self, process: Archiver) -> None:
        table = ArchiveTable(ARCHIVE, PAID.topic, PAID.partitions, NOTHING)
        super().__init__(process.lake, table, process, process, FLUSH)  # type: ignore[arg-type]
        self._writer = process.lake.topic_table(table)

    async def _open(self) -> Reader:
        await asyncio.to_thread(self._writer.open)
        self.positions = {partition: self._writer.position(partition) for partition in range(self.table.partitions)}
        positions = {TopicPartition(self.table.topic, partition): offset for partition, offset in self.positions.items()}
        return SparseReader(self._kafka, positions, {}, lambda target, count: None, **GATHERING)


class Archiver(StackProcess):
    """The offline writer's part that archives events: the real `Follower`, `SparseReader` and `TopicTable`."""

    def require(self, check: str) -> None:
        """As a `HealthBoard` that nobody looks at."""

    def up(self, check: str) -> None:
        """See `require`."""

    def down(self, check: str, reason: str) -> None:
        """See `require`."""

    async def run(self) -> None:
        """See `StackProcess`."""
        await ArchiveFollower(self).run()


class Folded:
    """The stores of feature computation and the offline writer, as far as `wait_folded` looks at them."""

    def __init__(self) -> None:
        self.link = Link(StoreUnavailable)
        self.fences: dict[bytes, bytes] = {}
        self.partitions: dict[TP, tuple[PartitionFold, dict[bytes, EntityState]]] = {}

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Fences."""
        return [self.fences.get(key) for key in keys]


class Folder(StackProcess):
    """Feature computation and the mirrors of logs, of which other histories tell. Here one process that is never killed follows the
    catalogue, folds each log by `PartitionFold`, and moves the counters of the log's table."""

    async def run(self) -> None:
        """See `StackProcess`."""
        await Following(self, DECLARED, views_of, _told).run(self._work)  # type: ignore[arg-type]

    async def _work(self, now: InForce) -> None:
        views = list(now.project.views.values())
        while True:
            await asyncio.sleep(0.5 * self.draw.random())
            with suppress(KafkaConnectionError):
                await self._fold(views)
            with suppress(KafkaConnectionError):
                await self.ask(self.broker.link, self._mirror, views)

    async def _fold(self, views: Sequence[FeatureView]) -> None:
        logs = {tp: view for view in views for tp in self.broker.of_topic(view_topic(NAME, view.log))}
        for tp, view in logs.items():
            self.folded.partitions.setdefault(tp, (PartitionFold.start(folding(view).kernel), {}))
        for tp, rows in (await self.ask(self.broker.link, self._rest, logs)).items():
            fold, states = self.folded.partitions[tp]
            decode = folding(logs[tp]).decode
            fold.advance([decode(row.offset, row.key, row.value) for row in rows], states)
            self.folded.fences[fence_key(NAME, logs[tp].log, tp.partition)] = fold.fence.encode()

    def _rest(self, logs: Iterable[TP]) -> dict[TP, Sequence[Row]]:
        found = {tp: self.broker.logs[tp].records[self.folded.partitions[tp][0].fence.next :] for tp in logs}
        return {tp: rows for tp, rows in found.items() if rows}

    def _mirror(self, views: Sequence[FeatureView]) -> None:
        for view in views:
            ends = {counter_name(*tp): self.broker.logs[tp].end for tp in self.broker.of_topic(view_topic(NAME, view.log))}
            table = self.lake.tables.setdefault(view_folder(view.log), MemoryTable(NOTHING))
            table.commit(table.version, None, ends)


class Job(StackProcess):
    """A command that ends. `done`: whether it succeeded."""

    done = False

    async def run(self) -> None:
        """See `StackProcess`."""
        try:
            await self.work()
        except TidemillError as error:
            self.note(self.name, f"ends: {error}"[:80])
        else:
            self.done = True
            self.note(self.name, "is done")
        self.alive = False

    async def work(self) -> None:
        """What it does. Raises TidemillError."""
        raise NotImplementedError


class Apply(Job):
    """`tidemill apply`: the real `Applying` with `Fill`. `fills(versions)` is called when the versions are
    in the catalogue, before they are filled."""

    def __init__(self, site: Site, name: str, project: Project) -> None:
        super().__init__(site, name)
        self.project = project
        self.fills: Callable[[Sequence[ViewVersion]], None] = lambda versions: None

    async def work(self) -> None:
        """See `Job`."""
        applying = Applying(self.project, self.lake, self, KEPT)  # type: ignore[arg-type]
        planned = await applying.planned()
        if not planned.plan.changes:
            return
        now = await applying.begin(planned)
        self.fills(planned.plan.fills)
        now = await applying.fill(planned, now, self)
        await applying.wait(planned, now, self, self)  # type: ignore[arg-type]
        await applying.finish(planned, now)

    async def mget(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """As the client of Redis."""
        found: list[bytes | None] = await self.ask(self.folded.link, self.folded.get_all, list(keys))
        return found

    def filling(self, version: ViewVersion, phase: Phase, done: int, total: int) -> None:
        """See `Watcher`."""
        self.note(self.name, f"fills {version.log}, {phase}", None, f"{done} of {total}")

    def filled(self, version: ViewVersion, done: Filled) -> None:
        """See `Watcher`."""
        self.note(self.name, f"has handed over {version.log}", None, str(done.handover))

    def waiting(self, view: FeatureView, online: int, offline: int, total: int) -> None:
        """See `Watcher`."""


class File:
    """A file of history, as `Load` reads it: `rows` in chunks of some."""

    kind = "parquet"
    CHUNK = 3

    def __init__(self, name: str, rows: Sequence[Paid]) -> None:
        self.path, self.digest, self.rows = Path(name), f"{name:0>16}", rows

    def chunks(self) -> Iterator[Chunk]:
        """Its rows."""
        for first in [*range(0, len(self.rows), self.CHUNK), len(self.rows)]:
            part = self.rows[first : first + self.CHUNK]
            yield Chunk(columns(part), np.arange(first, first + len(part)), None, [], (first + len(part)) / len(self.rows))


class LoadFile(Job):
    """`tidemill load` of one file: the real `Load`."""

    def __init__(self, site: Site, name: str, file: File) -> None:
        super().__init__(site, name)
        self.file = file

    async def work(self) -> None:
        """See `Job`."""
        await asyncio.to_thread(self._load)

    def _load(self) -> None:
        load = Load(DECLARED, PAID, self.lake, FileRules(), lambda file, row: None)
        load.run(self.file, lambda rows, share: self.busy(0.3 * self.draw.random()))  # type: ignore[arg-type]
