"""What the tests of the offline store and of prediction logging share: a project, records, a service process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from aiokafka import TopicPartition
from deltalake import DeltaTable
from tests.ask import get as ask
from tests.logged import whole_lines
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project, load_project
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.offline.delta import CountedTable
from tidemill.records import ViewRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

FOLDER = Path(__file__).parent / "lake_project"
ROOT = Path(__file__).parents[2]
NOW_MS = 1_700_000_000_000
Pair = tuple[bytes | None, bytes | None]


def lake(name: str = "lake") -> Project:
    """The tests' project under a name of its own."""
    return replace(load_project(FOLDER), name=name)


@dataclass
class Sent:
    """A consumed record as a mirror sees it."""

    offset: int
    key: bytes | None
    value: bytes | None

    @property
    def serialized_value_size(self) -> int:
        """Size of the value in bytes."""
        return len(self.value or b"")


def numbered(pairs: Sequence[Pair], first: int = 0) -> list[Sent]:
    """Records with consecutive offsets."""
    return [Sent(first + i, key, value) for i, (key, value) in enumerate(pairs)]


def shop_value(i: int, **changes: Any) -> bytes:
    """The i-th record of the view `shops`."""
    values: dict[str, Any] = {"price": i / 2, "weight": None if i % 3 else i * 0.1, "pieces": i, "paid": i % 2 == 0}
    return encode(ViewRecord(NOW_MS + i, NOW_MS + i + 5, (i % 4, i), values | changes, f"id{i}"))


class Service:
    """A service process for a project, an offline store and a broker."""

    def __init__(self, module: str, project: str, kafka: str, offline: Path, log: Path) -> None:
        self._module = module
        self._log = log
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}",
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "TIDEMILL_OFFLINE": str(offline),
            "TIDEMILL_PROJECT": str(FOLDER),
            "TIDEMILL_HOST": "127.0.0.1",
            "TIDEMILL_PORT": "0",
            "TIDEMILL_FLUSH_SECONDS": "0.1",
            "LAKE_PROJECT": project,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start it; returns at once."""
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=self._environment | environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill -9 it, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """End it in good order and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(PATIENCE_SECONDS)
        self.process = None
        return code

    def lines(self) -> list[dict[str, Any]]:
        """The log lines since the last start."""
        return whole_lines(self._log.read_bytes()[self._begin :])

    def get(self, path: str) -> httpx.Response:
        """An answer of its HTTP port. Raises AssertionError while it does not listen."""
        ports = [line["port"] for line in self.lines() if line["message"] == "listening"]
        assert ports, "not listening yet"
        try:
            return ask(f"http://127.0.0.1:{ports[-1]}{path}")
        except httpx.TransportError as error:
            raise AssertionError(str(error)) from error


@contextmanager
def running(service: Service, **environment: str) -> Iterator[Service]:
    """A started service, killed at the end whatever happens."""
    service.start(**environment)
    try:
        yield service
    finally:
        service.kill()


async def until(check: Any, seconds: float = PATIENCE_SECONDS) -> Any:
    """What `check()` returns once it is true. AssertionError and KeyError mean that it is not yet: a service tells little before it has begun."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := check():
                return answer
        except (AssertionError, KeyError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.05)


async def make_topics(kafka: str, project: Project) -> None:
    """All topics of a project."""
    await ensure_topics(KafkaSettings(bootstrap_servers=kafka), topic_specs(project))


async def send(kafka: str, wave: Mapping[tuple[str, int], Sequence[Pair]]) -> None:
    """Write records: (topic, partition) -> key and value, in order."""
    sender = producer(KafkaSettings(bootstrap_servers=kafka))
    await sender.start()
    try:
        await send_wave(sender, {target: [(key, value, []) for key, value in pairs] for target, pairs in wave.items()})
    finally:
        await close_producer(sender)


async def read_topic(kafka: str, topic: str) -> dict[int, list[Pair]]:
    """All records of a topic by partition, and perhaps some that come meanwhile."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    held = await offset_ranges(settings, topic)
    read: dict[TopicPartition, list[Pair]] = {target: [] for target in held}
    async with DenseReader(settings, dict.fromkeys(held, 0), {}) as reader:
        async for fetched in read_to_end(reader):
            for target, records in fetched.items():
                read[target] += [(record.key, record.value) for record in records]
    return {target.partition: pairs for target, pairs in read.items()}


# A plain table of offsets by source

SCHEMA = pa.schema([("source", pa.int32()), ("offset", pa.int64())])


def rows(source: int, start: int, end: int) -> pa.RecordBatch:
    """Rows that say what they are: the offsets from start up to and without end."""
    count = end - start
    return pa.record_batch([pa.array([source] * count, pa.int32()), pa.array(range(start, end), pa.int64())], SCHEMA)


def opened(path: Path) -> CountedTable:
    """A handle on the table at a path."""
    log = CountedTable(str(path), SCHEMA, description="offsets by source")
    log.open()
    return log


def content(path: Path) -> dict[int, list[int]]:
    """Offsets by source, in the order of a scan that sorts."""
    table = DeltaTable(path).to_pyarrow_dataset().to_table().sort_by([("source", "ascending"), ("offset", "ascending")])
    found: dict[int, list[int]] = {}
    for source, offset in zip(table["source"].to_pylist(), table["offset"].to_pylist(), strict=True):
        found.setdefault(source, []).append(offset)
    return found
