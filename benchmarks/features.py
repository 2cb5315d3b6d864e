"""How many events feature computation folds per second, and how soon an event is in the store, on a real Kafka and a real Valkey.

    python -m benchmarks.features

One worker process. 10,000 keys, six aggregates, windows of an hour, a day and a week. Beside it, in the same run, a bare consumer that
folds into a dict, stock Faust with a table, neither with windows, and, once `make peers` has installed it, Quix Streams with one window.
Then the same with other numbers of keys, with the fence and the proof switched off, and with two workers.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import psutil
from benchmarks.figures import Figure

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import Record, send_wave
from tidemill.kernel.fences import position
from tidemill.kernel.keys import partition_of
from tidemill.local.services import SERVICES, LocalService
from tidemill.local.stack import Stack
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs, view_topic

PROJECT_FILE = Path(__file__).with_name("features_project.py")
PROJECT = load_project(PROJECT_FILE)
VIEW = PROJECT.views["amounts"]
TOPIC = view_topic(PROJECT.name, VIEW.log)
KEYS, WARM_EVENTS = 10_000, 40_000
QUIX = Path(".venv-peers/bin/python")
MINUTE_MS, WEEK_MS = 60_000, 7 * 86_400_000
FEATURES = next(service for service in SERVICES if service.name == "features")
UNFENCED = replace(FEATURES, module="benchmarks.unfenced")
TICK_SECONDS, LOOK_SECONDS, SETTLE_SECONDS = 0.005, 0.001, 10.0


Sent = Callable[[dict[tuple[str, int], tuple[int, int]], float], None]


class Speed(NamedTuple):
    """Events per second of wall time and of the process's CPU time."""

    per_second: float
    per_cpu_second: float


class Freshness(NamedTuple):
    """Milliseconds from just before an event is sent to Kafka until the store has it."""

    median_ms: float
    p99_ms: float


class Source:
    """Records of the view's topic for so many keys, evenly over `span_ms` of event time up to now."""

    def __init__(self, keys: int = KEYS, partitions: int = VIEW.partitions) -> None:
        self._random = random.Random(1)
        self._keys, self._partitions = keys, partitions
        self._sent = 0

    def wave(self, events: int, start_ms: int, span_ms: int) -> dict[tuple[str, int], list[Record]]:
        """So many records, by topic and partition."""
        wave: dict[tuple[str, int], list[Record]] = {}
        draw, known = self._random, now_ms()
        for i in range(events):
            self._sent += 1
            key = b"card-%d" % draw.randrange(self._keys)
            value = b'{"time":%d,"known":%d,"source":[0,%d],"values":{"amount":%.2f}}' % (
                start_ms + i * span_ms // events, known, self._sent, draw.lognormvariate(3, 1),
            )  # fmt: skip
            wave.setdefault((TOPIC, partition_of(key, self._partitions)), []).append((key, value, []))
        return wave


async def backlog(stack: Stack, source: Source, events: int, span_ms: int) -> None:
    """Write events that end now and began `span_ms` ago."""
    settings, pieces = KafkaSettings(bootstrap_servers=stack.kafka), events // 20_000
    await ensure_topics(settings, {TOPIC: topic_specs(PROJECT)[TOPIC]})
    writer = producer(settings)
    await writer.start()
    start_ms = now_ms() - span_ms
    for i in range(pieces):
        await send_wave(writer, source.wave(20_000, start_ms + i * span_ms // pieces, span_ms // pieces))
    await close_producer(writer)


def reached(fence: object) -> int:
    """The position of a stored fence."""
    return position(fence if isinstance(fence, bytes) else None)


async def folded(writer: OnlineWriter) -> int:
    """How many records the store has applied."""
    return sum(reached(fence) for fence in await writer.fences([(VIEW.log, partition) for partition in range(VIEW.partitions)]))


async def measure_speed(stack: Stack, total: int, workers: Sequence[str] = ("features",)) -> tuple[Speed, float]:
    """From the first batch the workers apply until they have applied all; and the store's CPU seconds meanwhile."""
    processes, store = [psutil.Process(stack.pid(name)) for name in workers], psutil.Process(stack.pid("valkey"))
    async with RedisLink(stack.redis_url) as link:
        writer = OnlineWriter(link, PROJECT.name)
        before = await folded(writer)
        while (first := await folded(writer)) == before:
            await asyncio.sleep(0.01)
        started, cpu, store_cpu = time.monotonic(), cpu_seconds(*processes), cpu_seconds(store)
        while await folded(writer) < total:
            await asyncio.sleep(0.02)
        seconds, spent = time.monotonic() - started, cpu_seconds(*processes) - cpu
        return Speed((total - first) / seconds, (total - first) / spent), cpu_seconds(store) - store_cpu


def cpu_seconds(*processes: psutil.Process) -> float:
    """User and system time so far, of all together."""
    return sum(float(times.user + times.system) for times in (process.cpu_times() for process in processes))


async def produce(stack: Stack, source: Source, per_second: int, seconds: float, sent: Sent = lambda offsets, since: None) -> None:
    """Send at a steady rate. `sent` hears of each wave: the offsets it got, and when it was begun."""
    writer = producer(KafkaSettings(bootstrap_servers=stack.kafka))
    await writer.start()
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        sent(await send_wave(writer, source.wave(int(per_second * TICK_SECONDS), now_ms(), 1)), now)
        await asyncio.sleep(max(0.0, now + TICK_SECONDS - time.monotonic()))
    await close_producer(writer)


async def measure_freshness(stack: Stack, source: Source, per_second: int, seconds: float) -> Freshness:
    """Send at a steady rate; look at the fences every millisecond or so to see when each event has arrived."""
    waiting, taken = [deque[tuple[int, float]]() for _ in range(VIEW.partitions)], list[float]()

    def sent(offsets: dict[tuple[str, int], tuple[int, int]], since: float) -> None:
        for (_, partition), (_, last) in offsets.items():
            waiting[partition].append((last, since))

    async with RedisLink(stack.redis_url) as link:
        looking = asyncio.create_task(look(OnlineWriter(link, PROJECT.name), waiting, taken))
        await produce(stack, source, per_second, seconds, sent)
        while any(waiting):
            await asyncio.sleep(0.01)
        looking.cancel()
    taken.sort()
    return Freshness(taken[len(taken) // 2] * 1000, taken[int(len(taken) * 0.99)] * 1000)


async def look(store: OnlineWriter, waiting: list[deque[tuple[int, float]]], taken: list[float]) -> None:
    """Note how long each waiting offset took to be below its fence."""
    places = [(VIEW.log, partition) for partition in range(VIEW.partitions)]
    while True:
        fences, now = await store.fences(places), time.monotonic()
        for queue, fence in zip(waiting, fences, strict=True):
            while queue and queue[0][0] < reached(fence):
                taken.append(now - queue.popleft()[1])
        await asyncio.sleep(LOOK_SECONDS)


def peer(stack: Stack, name: str, events: int) -> Speed:
    """The speed of a peer over the first events of the topic."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [TOPIC, str(events), folder]
        own = [sys.executable, "-m", "benchmarks.features_peers", name]
        command = [str(QUIX), "benchmarks/quix_peer.py"] if name == "quix" else own
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": stack.kafka}
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=True)
    return Speed(*map(float, done.stdout.split()[-2:]))


def fold_backlog(stack: Stack, source: Source, events: int, before: int, span_ms: int) -> tuple[Speed, float]:
    """Stop the worker, write a backlog, and time the worker from its first batch on."""
    stack.halt("features")
    asyncio.run(backlog(stack, source, events, span_ms))
    stack.supervisor.start("features")
    return asyncio.run(measure_speed(stack, before + events))


def peers(stack: Stack, events: int) -> dict[str, float]:
    """Events per CPU second of the peers, over the same topic; the slow ones see a part of it."""
    found = {"bare consumer and dict": peer(stack, "bare", events).per_cpu_second}
    found["stock Faust with a table"] = peer(stack, "faust", events // 10).per_cpu_second
    if QUIX.exists():
        found["Quix Streams, one window"] = peer(stack, "quix", events // 5).per_cpu_second
    return found


@contextmanager
def running(services: Sequence[LocalService] = (FEATURES,)) -> Iterator[Stack]:
    """A stack of its own with the benchmark's project."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), project=str(PROJECT_FILE), services=services) as stack:
        yield stack


def by_keys(keys: int, events: int, services: Sequence[LocalService] = (FEATURES,)) -> Speed:
    """Speed with so many keys, all of which are in the store already."""
    with running(services) as stack:
        source = Source(keys)
        first = max(events, 3 * keys)
        fold_backlog(stack, source, first, 0, MINUTE_MS)
        return fold_backlog(stack, source, events, first, MINUTE_MS)[0]


def with_workers(names: Sequence[str], events: int) -> Speed:
    """Speed of so many workers that share the partitions already: they are held while the backlog is written, and let go together."""
    with running([replace(FEATURES, name=name) for name in names]) as stack:
        source = Source()
        asyncio.run(backlog(stack, source, WARM_EVENTS, MINUTE_MS))
        asyncio.run(caught_up(stack, WARM_EVENTS))
        for name in names:
            os.kill(stack.pid(name), signal.SIGSTOP)
        asyncio.run(backlog(stack, source, events, MINUTE_MS))
        for name in names:
            os.kill(stack.pid(name), signal.SIGCONT)
        return asyncio.run(measure_speed(stack, WARM_EVENTS + events, names))[0]


async def caught_up(stack: Stack, total: int) -> None:
    """Returns once so many events are applied and no partition has changed hands for a while."""
    async with RedisLink(stack.redis_url) as link:
        while await folded(OnlineWriter(link, PROJECT.name)) < total:
            await asyncio.sleep(0.1)
    await asyncio.sleep(SETTLE_SECONDS)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Speed with events over a minute and over a week beside the peers, freshness at two rates, other numbers of keys, and no fence."""
    events, seconds = (100_000, 5) if quick else (300_000, 20)
    with running() as stack:
        source, speeds = Source(), {}
        for done, (label, span_ms) in enumerate((("a minute", MINUTE_MS), ("a week", WEEK_MS))):
            speeds[label], _ = fold_backlog(stack, source, events, done * events, span_ms)
        stack.wait_ready("features")
        fresh = {rate: asyncio.run(measure_freshness(stack, source, rate, seconds)) for rate in (5_000, 10_000)}
        stack.halt("features")
        beside = peers(stack, events)
    for label, speed in speeds.items():
        yield Figure(f"feature computation, events over {label}", speed.per_cpu_second, "events per CPU second", beside)
        yield Figure(f"feature computation, events over {label}: wall", speed.per_second, "events/s", {})
    for rate, freshness in fresh.items():
        yield Figure(f"freshness at {rate:,} events/s: p50", freshness.median_ms, "ms", {})
        yield Figure(f"freshness at {rate:,} events/s: p99", freshness.p99_ms, "ms", {})
    with_fence = by_keys(KEYS, events).per_cpu_second
    unfenced = by_keys(KEYS, events, (UNFENCED,)).per_cpu_second
    beside = {"without fence and proof": unfenced}
    yield Figure(f"feature computation, {KEYS:,} keys in the store", with_fence, "events per CPU second", beside)
    for keys in (1_000, 100_000) if quick else (1_000, 100_000, 1_000_000):
        beside = {f"{KEYS:,} keys": with_fence}
        yield Figure(
            f"feature computation, {keys:,} keys in the store", by_keys(keys, events).per_cpu_second, "events per CPU second", beside
        )
    one, two = (with_workers(names, events) for names in (("features",), ("features", "features2")))
    yield Figure("feature computation, two workers: wall", two.per_second, "events/s", {"one worker": one.per_second})
    yield Figure("feature computation, two workers", two.per_cpu_second, "events per CPU second", {"one worker": one.per_cpu_second})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
