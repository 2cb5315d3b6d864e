"""The twin of a Delta table on a disk that fails, and mirrors of topics that write it: the real `Mirror`, `DenseReader`, `TopicTable` and `CountedTable`."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from aiokafka import TopicPartition
from deltalake.exceptions import DeltaError
from faust.types import TP
from tests.simulation.broker import Broker, Client, Row
from tests.simulation.loop import SimLoop
from tests.simulation.network import Process

from tidemill.checksums import proof_of
from tidemill.errors import TidemillError, TopicRecreated, TornTable
from tidemill.kafka.reader import Reader
from tidemill.offline import delta
from tidemill.offline.delta import CountedTable
from tidemill.offline.mirror import Flush, Mirror
from tidemill.offline.store import TopicTable, counter_name
from tidemill.testing import lake as twin

Rows = dict[int, Sequence[Row]]
FLUSH = Flush(0.5, 40)
SCHEMA = pa.schema([])


@dataclass(frozen=True)
class Commit(twin.Commit):
    """One version; rows are by partition. `last`: the last row of each partition after it."""

    last: dict[int, Row]


NOTHING = Commit({}, {}, {}, {})


class Table(twin.MemoryTable):
    """The commits of a table. `committed(commit, by)` is called after each. `torn`: the newest commit is half written."""

    commits: list[Commit]  # type: ignore[assignment]  # of a kind that says more

    def __init__(self, name: str) -> None:
        super().__init__(SCHEMA)
        self.name = name
        self.commits = [NOTHING]
        self.torn = False
        self.committed: Callable[[Commit, MirrorProcess], None] = lambda commit, by: None

    def __str__(self) -> str:
        return self.name

    def write(self, base: int, rows: Rows, moves: dict[str, int], by: MirrorProcess) -> None:
        """Add a version, unless one after `base` moved a counter of these, or the newest cannot be read."""
        self.look(base, moves)
        self.read()
        before = self.commits[-1]
        last = before.last | {partition: part[-1] for partition, part in rows.items() if part}
        self.commits.append(Commit(rows, moves, {**before.counters, **moves}, last))
        self.committed(self.commits[-1], by)

    def read(self) -> None:
        """Whoever opens the table reads its newest commit."""
        if self.torn:
            raise DeltaError("the newest commit cannot be read")

    def move_away(self) -> None:
        """The table begins again."""
        self.commits, self.torn = [NOTHING], False

    def cut_power(self, draw: random.Random) -> None:
        """What was not synced is lost: the newest commit is empty, so that it never happened, or half written."""
        if self.version and self.commits[-1].moves and not self.torn:
            if draw.random() < 0.5:
                self.commits.pop()
            else:
                self.torn = True

    def drop_torn(self) -> bool:
        """What the writer does with a half-written commit."""
        if self.torn:
            self.commits.pop()
        found, self.torn = self.torn, False
        return found

    def explain_torn(self) -> None:
        """For who could not open it."""
        if self.torn:
            raise TornTable("the newest commit is half written", mend="start the writer")


class Handle(twin.Handle):
    """A `DeltaTable`, which cannot be opened or merged while its newest commit is half written."""

    table: Table

    def __init__(self, table: Table) -> None:
        table.read()
        super().__init__(table)

    def compact(self, **options: Any) -> None:
        """A commit without rows or counters."""
        self.table.read()
        super().compact(**options)


class SimCountedTable(CountedTable):
    """The real append and its checks, on a simulated table; `troubled()` says what goes wrong with a commit."""

    def __init__(self, table: Table, process: MirrorProcess) -> None:
        super().__init__(table, SCHEMA, description="")  # type: ignore[arg-type]
        self.files = table
        self.process = process

    def _load(self) -> Any:
        self.process.busy(0.02 * self.process.draw.random())
        return Handle(self.files)

    def _fit(self, table: Any) -> list[str]:
        return []

    def _small_files(self, table: Any) -> int:
        return int(table.version()) % delta.FILES_PER_MERGE

    def _write(self, table: Any, rows: Any, moves: Mapping[str, tuple[int, int]]) -> None:
        process = self.process
        process.busy(process.commit_seconds * process.draw.random())
        fate = process.draw.random()
        if fate < process.disk_faults / 2:
            raise OSError("No space left on device")
        self.files.write(table.base, rows, {name: end for name, (start, end) in moves.items() if end != start}, process)
        table.base = self.files.version
        process.busy(0.02 * process.draw.random())
        if fate < process.disk_faults:
            raise OSError("the answer was lost")  # an object store's, say


class SimStore:
    """An `OfflineStore` with one table."""

    spec: Spec

    def __init__(self, table: Table, process: MirrorProcess) -> None:
        self.table = table
        self.process = process

    def topic_table(self, spec: Any) -> TopicTable:
        """The table, to append to."""
        self.spec = spec
        return TopicTable(spec, SimCountedTable(self.table, self.process))

    def snapshot(self, name: str) -> Any:
        """The table, to read."""
        self.process.busy(0.02 * self.process.draw.random())
        try:
            self.table.read()
        except DeltaError:
            self.table.explain_torn()
        return self

    @property
    def positions(self) -> dict[int, int]:
        """See `Snapshot.positions`; of a table whose merges are not modelled."""
        counters = self.table.commits[-1].counters
        return {p: counters.get(counter_name(self.spec.topic, p), 0) for p in range(self.spec.partitions)}

    def proofs_before(self, positions: Mapping[int, int]) -> dict[int, int]:
        """See `Snapshot.proofs_before`."""
        proofs = {}
        for partition, position in positions.items():
            row = self.table.commits[-1].last.get(partition)
            while row is not None and row.offset > position - 1:
                row = row.before
            if row is not None and row.offset == position - 1:
                proofs[partition] = proof_of(row.key, row.value)
        return proofs


class Spec(NamedTuple):
    """What a mirror needs of a `MirrorTable`; rows are kept as they come."""

    name: str
    topic: str
    partitions: int

    def rows_of(self, read: Rows) -> Rows:
        """The rows themselves."""
        return dict(read)


class Reading(Process):
    """A process that reads topics."""

    broker: Broker


class SimConsumer:
    """As much of an AIOKafkaConsumer as `DenseReader` uses."""

    def __init__(self, process: Reading, **_how_it_fetches: object) -> None:
        self._process = process
        self._client = Client(process, process.broker)
        self._assigned: list[TP] = []

    async def start(self) -> None:
        """Connects."""
        await self._process.ask(self._process.broker.link, int)

    async def stop(self) -> None:
        """Disconnects."""

    async def beginning_offsets(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where logs begin."""
        return {TopicPartition(*tp): offset for tp, offset in (await self._bounds(targets))[0].items()}

    async def end_offsets(self, targets: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where logs end."""
        return {TopicPartition(*tp): offset for tp, offset in (await self._bounds(targets))[1].items()}

    async def _bounds(self, targets: Sequence[TopicPartition]) -> Any:
        return await self._client._ask(self._process.broker.held, [TP(*target) for target in targets])

    def assign(self, targets: Sequence[TopicPartition]) -> None:
        """What to read."""
        self._assigned = [TP(*target) for target in targets]

    def seek(self, target: TopicPartition, offset: int) -> None:
        """From where."""
        self._client.at[TP(*target)] = offset

    async def position(self, target: TopicPartition) -> int:
        """The offset of the next record."""
        return self._client.at[TP(*target)]

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The numbers of a topic's partitions."""
        return {tp.partition for tp in self._process.broker.logs if tp.topic == topic}

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Row]]:
        """What has come."""
        fetched = await self._client.fetch(set(self._assigned), timeout_ms / 1000)
        return {TopicPartition(*tp): rows for tp, rows in fetched.items()}


class CountingMirror(Mirror):
    """Counts what it collects. `refuses`: the topic is not the one that the table mirrors."""

    collected = 0
    refuses = False

    async def _follow(self) -> None:
        try:
            await super()._follow()
        except TidemillError as error:
            self.refuses = isinstance(error, TopicRecreated)
            raise

    async def _collect(self, reader: Reader, due: float) -> dict[int, list[Any]]:
        self.collected += 1
        self.refuses = False
        return await super()._collect(reader, due)


class MirrorProcess(Reading):
    """An offline writer. `disk_faults`: share of commits that fail, half of them after they took effect."""

    def __init__(self, loop: SimLoop, draw: random.Random, name: str, broker: Broker, table: Table) -> None:
        super().__init__(loop, draw, name)
        self.broker = broker
        self.disk_faults = 0.0
        self.commit_seconds = 0.05
        topic = next(iter(broker.logs)).topic
        self.mirror = CountingMirror(
            SimStore(table, self),  # type: ignore[arg-type]
            Spec(table.name, topic, len(broker.logs)),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            FLUSH,
        )

    @property
    def bootstrap_servers(self) -> str:
        """For messages."""
        return "simulated"

    def require(self, check: str) -> None:
        """As a `HealthBoard` that nobody looks at."""

    def up(self, check: str) -> None:
        """See `require`."""

    def down(self, check: str, reason: str) -> None:
        """See `require`."""

    def start(self) -> None:
        """Begin."""
        self.spawn(self.mirror.run())
