"""A project with two views on real servers: traffic with every kind of trouble in it, worker processes, and the offline fold they must equal."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis
from aiokafka import TopicPartition
from tests.ask import get as ask
from tests.logged import whole_lines
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import Project, load_project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.fences import Fence, position
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.local.processes import HOST
from tidemill.names import LogName
from tidemill.online.keys import fence_key, state_key
from tidemill.records import ViewRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs, view_topic

ROOT = Path(__file__).parents[2]
START_MS = 1_790_000_000_000
PROJECT = """
from tidemill.declarations.aggregates import age, count, last, max, mean, min, rate, std, sum
from tidemill.declarations import Event, FeatureView

PROJECT = {name!r}
paid = Event("paid", {{"at": int, "card": str, "shop": str, "amount": float | None}}, time="at")
by_card = FeatureView(
    "by_card", paid, "card", [count(), sum("amount"), std("amount"), rate("amount > 50", name="large")], windows=["1h", "24h"], dedupe={dedupe}
)
by_shop = FeatureView("by_shop", paid, "shop", [mean("amount"), min("amount"), max("amount"), last("amount"), age()], windows=["1h"], partitions=2)
"""


@dataclass
class Rig:
    """One project on one broker and one store."""

    name: str
    folder: Path
    kafka: str
    redis_url: str
    dedupe: int = 8
    seed: int = 1
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.declare(self.dedupe)
        self.settings = KafkaSettings(bootstrap_servers=self.kafka)
        self.project: Project = load_project(self.folder)
        self.traffic = Traffic(self.project, self.seed)
        self.store = redis.Redis.from_url(self.redis_url)

    def declare(self, dedupe: int) -> None:
        """Write the project down; another `dedupe` is another definition of one view."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "project.py").write_text(PROJECT.format(name=self.name, dedupe=dedupe))

    def topics(self) -> list[str]:
        """The view topics."""
        return [view_topic(self.name, view.log) for view in self.project.views.values()]

    def produce(self, events: int) -> None:
        """Write the records of so many events to the view topics, as ingestion does."""
        asyncio.run(self._produce(events))

    async def _produce(self, events: int) -> None:
        specs = topic_specs(self.project)
        await ensure_topics(self.settings, {topic: specs[topic] for topic in self.topics()})
        writer = producer(self.settings)
        await writer.start()
        await send_wave(writer, self.traffic.wave(events))
        await close_producer(writer)

    def worker(self, module: str = "tidemill_features", **environment: str) -> Worker:
        """Start one more worker process."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        ports = {"TIDEMILL_HOST": HOST, "TIDEMILL_PORT": "0", "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}"}
        addresses = {"KAFKA_BOOTSTRAP_SERVERS": self.kafka, "REDIS_URL": self.redis_url, "TIDEMILL_PROJECT": str(self.folder)}
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", module], env={**os.environ, **ports, **addresses, **environment}, stderr=out)
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def stop(self) -> None:
        """End every worker, whatever state it is in."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
        self.store.close()

    def position(self, topic: str, partition: int) -> int:
        """The next offset of a stored fence."""
        return position(self.store.get(fence_key(self.name, LogName(topic.removeprefix(f"{self.name}.view.")), partition)))  # type: ignore[arg-type]

    def stored(self) -> list[bytes]:
        """Every Redis key of the project: fences and entities of all its views."""
        found: list[bytes] = []
        for view in self.project.views.values():
            for partition in range(view.partitions):
                found += self.store.keys(fence_key(self.name, view.log, partition))  # type: ignore[arg-type]
                found += self.store.keys(state_key(self.name, view.log, partition, b"*"))  # type: ignore[arg-type]
        return found

    async def _ends(self) -> dict[TopicPartition, int]:
        reader = consumer(self.settings)
        await reader.start()
        views = self.project.views.values()
        ends = await reader.end_offsets([TopicPartition(view_topic(self.name, v.log), p) for v in views for p in range(v.partitions)])
        await reader.stop()
        return dict(ends)

    def wait_folded(self) -> None:
        """Return once every fence has reached the end that its topic has now."""
        ends = asyncio.run(self._ends())
        until(
            lambda: all(self.position(tp.topic, tp.partition) == end for tp, end in ends.items()),
            lambda: "not all was folded\n" + "\n".join(worker.tail() for worker in self.workers),
        )

    def check(self) -> None:
        """Assert that the store holds exactly what an offline fold of the log below each fence holds: no byte more, less or different."""
        asyncio.run(self._check())

    async def _check(self) -> None:
        for tp, end in (await self._ends()).items():
            view = next(view for view in self.project.views.values() if view_topic(self.name, view.log) == tp.topic)
            kernel, stored = ViewKernel(view), self.store.get(fence_key(self.name, view.log, tp.partition))
            assert self.position(tp.topic, tp.partition) == end
            fold, states = await self._offline(tp, end, kernel)
            assert isinstance(stored, bytes)
            assert msgspec.structs.replace(Fence.decode(stored), built="") == fold.fence  # `built`: which rebuild it comes from
            prefix = state_key(self.name, view.log, tp.partition, b"")
            found = {key.removeprefix(prefix): self.store.get(key) for key in self.store.scan_iter(match=prefix + b"*", count=1000)}
            assert found == {entity: kernel.encode(state) for entity, state in states.items()}

    async def _offline(self, tp: TopicPartition, end: int, kernel: ViewKernel) -> tuple[PartitionFold, dict[bytes, EntityState]]:
        fold, states, decode = PartitionFold.start(kernel), dict[bytes, EntityState](), entry_decoder(kernel.view)
        reader = consumer(self.settings)
        await reader.start()
        reader.assign([tp])
        reader.seek(tp, 0)
        while fold.fence.next < end:
            for records in (await reader.getmany(timeout_ms=1000)).values():
                fold.advance([decode(record.offset, record.key, record.value) for record in records], states)
        await reader.stop()
        return fold, states


@dataclass
class Worker:
    """One worker process."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def tail(self) -> str:
        """The end of its log, for failure messages."""
        return self.log.read_text(errors="replace")[-3000:]

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return whole_lines(self.log.read_bytes())

    def works_by(self, number: int) -> bool:
        """Whether it has begun to work by this catalogue."""
        return any(line["message"] == "working by" and line["catalogue"] == number for line in self.lines())

    def checks(self) -> dict[str, Any]:
        """The checks of its board."""
        return dict(msgspec.json.decode(self.get("/health/ready")[1])["checks"])

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP port; 0 while it does not answer."""
        try:
            answer = ask(self._base() + path)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return 0, repr(error)
        return answer.status_code, answer.text

    def _base(self) -> str:
        if not self.url:
            said = re.search(r'"message":"listening".*"port":(\d+)', self.log.read_text())
            self.url = f"http://{HOST}:{said[1]}" if said else ""
        return self.url

    def wait_ready(self) -> None:
        """Return once it has its partitions."""
        until(lambda: self.get("/health/ready")[0] == 200, lambda: f"not ready: {self.get('/health/ready')}\n{self.tail()}")

    def wait_saying(self, text: str) -> None:
        """Return once its readiness gives a reason that contains `text`."""
        until(lambda: text in self.get("/health/ready")[1], lambda: f"never said {text!r}: {self.get('/health/ready')}\n{self.tail()}")

    def metric(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def label(self, name: str, label: str) -> set[str]:
        """The values of a label of a metric."""
        return set(re.findall(rf'^{name}{{.*\b{label}="([^"]*)"', self.get("/metrics")[1], re.MULTILINE))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_ended(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(180)


class Traffic:
    """Events of two views, seeded: out of order, late, published twice, sent twice by ingestion, null, and not decodable."""

    def __init__(self, project: Project, seed: int) -> None:
        self._project = project
        self._random = random.Random(seed)
        self._events = 0
        self._source = [0] * 3
        self._recent: list[tuple[dict[str, str], ViewRecord]] = []

    def wave(self, events: int) -> dict[tuple[str, int], list[Record]]:
        """The next events, as records by topic and partition."""
        wave: dict[tuple[str, int], list[Record]] = {}
        for _ in range(events):
            entities, record = self._next()
            for view in self._project.views.values():
                key = entities[view.key.fields[0]].encode()
                known = ViewRecord(
                    record.time, record.known, record.source, {name: record.values[name] for name in view.value_fields}, record.id
                )
                poison = self._random.random() < 0.001
                target = view_topic(self._project.name, view.log), partition_of(key, view.partitions)
                wave.setdefault(target, []).append((key, b'{"time":' if poison else encode(known), []))
        return wave

    def _next(self) -> tuple[dict[str, str], ViewRecord]:
        draw, again = self._random, self._random.random()
        if again < 0.01 and self._recent:
            return draw.choice(self._recent)  # ingestion sends a record again
        self._events += 1
        partition = draw.randrange(3)
        self._source[partition] += 1
        source = partition, self._source[partition]
        if again < 0.02 and self._recent:  # the publisher sends an event again
            entities, first = draw.choice(self._recent)
            return entities, ViewRecord(first.time, first.known, source, first.values, first.id)
        delay = draw.choice([0, 0, 0, 60_000, 3_600_000, 90_000_000])
        amount = None if draw.random() < 0.05 else draw.gauss(50, 20)
        record = ViewRecord(START_MS + 1000 * self._events - delay, START_MS, source, {"amount": amount}, f"e{self._events}")
        entities = {"card": f"card-{draw.randrange(300)}", "shop": f"shop-{draw.randrange(40)}"}
        self._recent = [*self._recent[-50:], (entities, record)]
        return entities, record


def until(
    holds: Callable[[], bool], explain: Callable[[], str], limit_seconds: float = PATIENCE_SECONDS, poll_seconds: float = 0.1
) -> None:
    """Wait for something to hold; fail with the explanation when it takes too long for any machine."""
    end = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < end, explain()
        time.sleep(poll_seconds)
