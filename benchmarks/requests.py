"""Requests per second and latency of feature serving and of predictions by entity, beside a bare ASGI server in the same run.

python -m benchmarks.requests
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import psutil
from benchmarks.figures import Figure
from benchmarks.load import Load, run_load
from benchmarks.requests_project import ENTITIES

from tidemill.declarations.project import Project, load_project
from tidemill.kafka.client import producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kernel.fold import LogEntry, PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.local.services import SERVICES, LocalService
from tidemill.local.stack import Stack
from tidemill.models.artifact import Manifest, ModelInput, Parity, save_artifact
from tidemill.online.writer import OnlineWriter
from tidemill.records import DeploymentRecord, ViewRecord, encode
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import deployments_topic, topic_specs
from tidemill.training.conversion import to_onnx

PROJECT = Path(__file__).with_name("requests_project.py")
BARE = LocalService("bare", "benchmarks.bare", ())
STARTED = (*(service for service in SERVICES if service.name in ("serving", "inference")), BARE)
KEYS = {"origin": 3, "carrier": 16, "tailnum": 1_000}
HOURS = 24
EVENTS = 40_000


def events(now_ms: int) -> Iterator[dict[str, object]]:
    """A day of departures up to now, in order of time."""
    chance = random.Random(0)
    for i in range(EVENTS):
        keys = {name: f"{name}{chance.randrange(count)}" for name, count in KEYS.items()}
        yield {**keys, "at": now_ms - HOURS * 3_600_000 * (EVENTS - i) // EVENTS, "delay": chance.gauss(10, 20), "flight": str(i)}


async def fill(project: Project, redis_url: str) -> None:
    """Folds the events into the online store."""
    made = list(events(time.time_ns() // 1_000_000))
    async with RedisLink(redis_url, 10) as link:
        writer = OnlineWriter(link, project.name)
        for view in project.views.values():
            decode, kernel = entry_decoder(view), ViewKernel(view)
            logs: dict[int, list[LogEntry]] = {}
            for i, event in enumerate(made):
                key = str(event[view.key.fields[0]]).encode()
                entries = logs.setdefault(partition_of(key, view.partitions), [])
                values = {name: event[name] for name in view.value_fields}
                record = ViewRecord(event["at"], event["at"], (0, i), values)  # type: ignore[arg-type]
                entries.append(decode(len(entries), key, encode(record)))
            for partition, entries in logs.items():
                fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
                touched = fold.advance(entries, states).touched
                values_of = {key: kernel.encode(states[key]) for key in touched}
                assert await writer.apply(view.log, partition, None, fold.fence.encode(), values_of)


async def deploy(project: Project, stack: Stack) -> None:
    """Trains the model on random rows, saves it and announces it."""
    model = project.models["late"]
    rows = np.random.default_rng(0).normal(size=(2_000, len(model.input_names))).astype(np.float32)
    pipeline = model.pipeline().fit(rows, rows.sum(axis=1) > 0)
    onnx = to_onnx(pipeline, rows.shape[1], probability=True)
    requests = [request.name for request in model.requests]
    manifest = Manifest(
        model="late", version="v1", created=0, output="probability", trained_from=0, trained_until=0, rows=len(rows), metrics={}, reference={},
        inputs=[ModelInput(name, "number" if name in requests else "feature") for name in model.input_names],
        definitions={view.name: ViewKernel(view).definition for view in model.views},
        parity=Parity(0, 0, 1e-4), onnx_sha256=hashlib.sha256(onnx).hexdigest(),
    )  # fmt: skip
    folder, digest = save_artifact(stack.offline, manifest, onnx)
    async with producer(KafkaSettings(bootstrap_servers=stack.kafka)) as made:
        await made.send_and_wait(deployments_topic(project.name), encode(DeploymentRecord("late", "v1", folder, digest, 0)))


def prepare(stack: Stack) -> None:
    """Topics, state and a model, before the services start."""
    project = load_project(PROJECT)

    async def run() -> None:
        await ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(project))
        await fill(project, stack.redis_url)
        await deploy(project, stack)

    asyncio.run(run())


def feature_bodies(rows: int) -> list[bytes]:
    """Requests for all features of random entities, so many rows each."""
    chance = random.Random(1)
    lists = [{name: [f"{name}{chance.randrange(KEYS[name])}" for _ in range(rows)] for name in ENTITIES} for _ in range(200)]
    return [msgspec.json.encode({"entities": entities, "feature_service": "late", "full_feature_names": True}) for entities in lists]


def predict_bodies() -> list[bytes]:
    """Requests for predictions of random entities."""
    chance = random.Random(2)
    return [
        msgspec.json.encode(
            {"entities": {**{name: f"{name}{chance.randrange(KEYS[name])}" for name in ENTITIES}, "distance": chance.random(), "hour": 7}}
        )
        for _ in range(200)
    ]


class Measured(NamedTuple):
    """One line of the table. `cpu_ms`: of the service's process, for each request."""

    name: str
    load: Load
    cpu_ms: float


def measure(stack: Stack, name: str, service: str, path: str, bodies: list[bytes], clients: int, seconds: float) -> Measured:
    """Runs clients against a service."""
    process = psutil.Process(stack.pid(service))
    before = process.cpu_times()
    load = run_load(stack.urls[service], path, bodies, clients, seconds)
    after = process.cpu_times()
    cpu_seconds = after.user + after.system - before.user - before.system
    return Measured(name, load, 1000 * cpu_seconds / (load.requests_per_second * seconds))


def compare(stack: Stack, seconds: float) -> Iterator[Measured]:
    """Each kind of request at one client and at 16, and after each the bare server answering as many bytes."""
    for name, service, path, bodies in (
        ("features, 1 row of 30", "serving", "/get-online-features", feature_bodies(1)),
        ("features, 50 rows of 30", "serving", "/get-online-features", feature_bodies(50)),
        ("prediction by entity", "inference", "/predict/late", predict_bodies()),
    ):
        run_load(stack.urls[service], path, bodies, 4, seconds / 4)  # warm
        for clients in (1, 16):
            measured = measure(stack, name, service, path, bodies, clients, seconds)
            yield measured
            size = measured.load.body_bytes
            yield measure(stack, f"bare server, {size} bytes", "bare", f"/{size}", bodies, clients, seconds)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Requests per second and latency; beside each the bare server answering as many bytes."""
    with tempfile.TemporaryDirectory() as home, Stack(Path(home), project=str(PROJECT), services=STARTED, prepare=prepare) as stack:
        lines = compare(stack, 1.5 if quick else 5.0)
        for ours, bare in zip(lines, lines, strict=True):
            name = f"{ours.name}, {ours.load.clients} client{'s' if ours.load.clients > 1 else ''}"
            if ours.load.failures:
                raise RuntimeError(f"{name}: {ours.load.failures} requests failed")
            yield Figure(name, ours.load.requests_per_second, "requests/s", {"bare ASGI": bare.load.requests_per_second})
            yield Figure(f"{name}: p50", ours.load.p50_ms, "ms", {"bare ASGI": bare.load.p50_ms})
            yield Figure(f"{name}: p99", ours.load.p99_ms, "ms", {"bare ASGI": bare.load.p99_ms})
            yield Figure(f"{name}: service CPU", ours.cpu_ms, "ms/request", {"bare ASGI": bare.cpu_ms})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
