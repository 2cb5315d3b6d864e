"""How many events ingestion routes per second of CPU: the routing alone, and the whole process beside a real Kafka.

python -m benchmarks.ingestion
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
from aiokafka import TopicPartition
from benchmarks.figures import Figure

from tidemill.declarations.project import load_project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.topics import committed, ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.local.services import SERVICES
from tidemill.local.stack import Stack
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, topic_specs, view_topic

PROJECT = Path(__file__).with_name("departures.py")
EVENT = "bench.departed"
START_MS = 1_357_020_900_000
INGESTION = next(service for service in SERVICES if service.name == "ingestion")


class EndToEnd(NamedTuple):
    """What the process did: events per second of its CPU and of wall time, and the median time until a lone event is routed."""

    per_cpu_second: float
    per_second: float
    lone_ms: float


def departure(number: int) -> bytes:
    """One event, as an application would write it."""
    data = {
        "flight_id": f"AA{number}", "carrier": f"C{number % 16}", "origin": ("EWR", "JFK", "LGA")[number % 3], "dest": "LAX",
        "tailnum": f"N{number % 4000}", "departed_at": START_MS + number, "dep_delay": float(number % 60), "distance": 2475.0,
    }  # fmt: skip
    return json.dumps(data).encode()


def headers_of(number: int) -> list[tuple[str, bytes]]:
    """CloudEvents headers, as in Kafka's binary mode."""
    return [
        ("ce_specversion", b"1.0"), ("ce_id", f"AA{number}".encode()), ("ce_type", EVENT.encode()), ("ce_source", b"benchmark"),
        ("ce_recordedtime", str(START_MS + number).encode()), ("content-type", b"application/json"),
    ]  # fmt: skip


def route_alone(events: int = 100_000, *, with_headers: bool = True) -> float:
    """Events per CPU second of routing alone, one event feeding three views."""
    router = Router(load_project(PROJECT))
    values = [(departure(number), headers_of(number) if with_headers else ()) for number in range(events)]
    started = time.process_time()
    for offset, (value, headers) in enumerate(values):
        router.route(EVENT, 0, offset, START_MS + offset, None, value, headers)
    taken = time.process_time() - started
    if router.refused:
        raise AssertionError(f"the benchmark's events were refused: {router.refused}")
    return events / taken


def end_to_end(events: int = 400_000, *, with_headers: bool = True) -> EndToEnd:
    """The service as a process beside a real Kafka: a backlog, then lone events one after the other."""
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), project=str(PROJECT), services=(INGESTION,)) as stack:
        settings = KafkaSettings(bootstrap_servers=stack.kafka)
        stack.halt("ingestion")
        asyncio.run(_publish(settings, events, with_headers))
        stack.resume("ingestion")
        process = psutil.Process(stack.pid("ingestion"))
        before, started = _cpu_seconds(process), time.monotonic()
        first = asyncio.run(_routed(settings))
        asyncio.run(_wait_routed(settings, events))
        taken, cpu = time.monotonic() - started, _cpu_seconds(process) - before
        lone_ms = asyncio.run(_lone_ms(settings, events))
    return EndToEnd((events - first) / cpu, (events - first) / taken, lone_ms)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _publish(settings: KafkaSettings, events: int, with_headers: bool) -> None:
    """Write a backlog, in turn to every partition."""
    project = load_project(PROJECT)
    await ensure_topics(settings, topic_specs(project))
    partitions = project.events[EVENT].partitions
    made = producer(settings)
    await made.start()
    for start in range(0, events, 20_000):
        numbers = range(start, min(start + 20_000, events))
        wave = {
            (EVENT, partition): [(None, departure(n), headers_of(n) if with_headers else []) for n in numbers[partition::partitions]]
            for partition in range(partitions)
        }
        await send_wave(made, wave)
    await close_producer(made)


async def _routed(settings: KafkaSettings) -> int:
    return Counter(await committed(settings, ingestion_group(load_project(PROJECT).name))).total()


async def _wait_routed(settings: KafkaSettings, events: int) -> None:
    while await _routed(settings) < events:
        await asyncio.sleep(0.05)


async def _lone_ms(settings: KafkaSettings, first: int, events: int = 100) -> float:
    """Median milliseconds from sending one event to its record being read on a view topic, nothing else going on."""
    project = load_project(PROJECT)
    topic = view_topic(project.name, project.views["origin_delays"].log)
    reader = consumer(settings, group=None, auto_offset_reset="latest")
    writer = producer(settings)
    await reader.start()
    await writer.start()
    reader.assign([TopicPartition(topic, partition) for partition in range(4)])
    await reader.seek_to_end()
    taken = []
    for number in range(first, first + events):
        started = time.perf_counter()
        await writer.send(EVENT, departure(number), partition=number % 4)
        await reader.getone()
        taken.append(time.perf_counter() - started)
    await close_producer(writer)
    await reader.stop()
    return median(taken) * 1000


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Routing alone is the limit of the process."""
    scale = 4 if quick else 1
    for label, with_headers in (("CloudEvents headers", True), ("bare JSON", False)):
        alone = route_alone(100_000 // scale, with_headers=with_headers)
        process = end_to_end(400_000 // scale, with_headers=with_headers)
        yield Figure(f"ingestion, {label}", process.per_cpu_second, "events per CPU second", {"routing alone, no Kafka": alone})
        yield Figure(f"ingestion, {label}: a lone event is routed", process.lone_ms, "ms", {})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
