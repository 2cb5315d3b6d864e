"""Versions that change under load: `python -m benchmarks.swaps`. Two versions are deployed in turn, 200 times, while clients ask for predictions.

Beside the latency with swaps stands that of the same load without them, and that with a shadow.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import psutil
from benchmarks.figures import Figure
from benchmarks.load import Load, run_load
from benchmarks.requests import PROJECT, STARTED, predict_bodies, prepare
from benchmarks.requests_project import PROJECT as NAME

from tidemill.kafka.client import producer
from tidemill.local.stack import Stack
from tidemill.models.artifact import folder_of, save_artifact, stored_artifact, stored_manifest
from tidemill.records import DeploymentRecord, OtherVersion, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import append_deployment
from tidemill.streams.topics import deployments_topic

MODEL = "late"
SWAPS, SECONDS = 200, 60.0
QUICK_SWAPS, QUICK_SECONDS = 10, 5.0
CLIENTS, PER_SECOND = 4, 200.0


def deployments(stack: Stack) -> list[DeploymentRecord]:
    """One of each of two versions; the second version is a copy of the first under another name."""
    manifest, onnx = stored_artifact(stack.offline, MODEL, "v1")
    folder, digest = save_artifact(stack.offline, msgspec.structs.replace(manifest, version="v2"), onnx)
    _, first = stored_manifest(stack.offline, MODEL, "v1")
    return [DeploymentRecord(MODEL, "v1", folder_of(MODEL, "v1"), first, 0), DeploymentRecord(MODEL, "v2", folder, digest, 0)]


async def swapped(stack: Stack, records: list[DeploymentRecord], most: int, load: Future[Load]) -> int:
    """Deploys the records in turn while a load runs, each once the one before serves. Returns how many served."""
    async with (
        httpx.AsyncClient(base_url=stack.urls["inference"], trust_env=False) as http,
        producer(KafkaSettings(bootstrap_servers=stack.kafka)) as made,
    ):
        for i in range(most):
            record = records[(i + 1) % 2]
            await made.send_and_wait(deployments_topic(NAME), encode(record))
            while (await http.get(f"/v2/models/{MODEL}/versions/{record.version}/ready")).is_error:
                await asyncio.sleep(0.002)
            if load.done():
                return i
    return most


def ask(stack: Stack, seconds: float) -> Load:
    """The load, at a fixed rate."""
    return run_load(stack.urls["inference"], f"/predict/{MODEL}", predict_bodies(), CLIENTS, seconds, PER_SECOND)


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Latency with swaps, without and with a shadow; failures; and how much memory the swaps took."""
    swaps, seconds = (QUICK_SWAPS, QUICK_SECONDS) if quick else (SWAPS, SECONDS)
    with (
        tempfile.TemporaryDirectory() as home,
        Stack(Path(home), project=str(PROJECT), services=STARTED, prepare=prepare) as stack,
        ThreadPoolExecutor(1) as pool,
    ):
        process, records = psutil.Process(stack.pid("inference")), deployments(stack)
        ask(stack, seconds / 10)
        alone = ask(stack, seconds / 4)
        asyncio.run(swapped(stack, records, 10, Future()))
        before = process.memory_info().rss
        running = pool.submit(ask, stack, seconds)
        done = asyncio.run(swapped(stack, records, swaps, running))
        during = running.result()
        grown = process.memory_info().rss - before
        shadow = OtherVersion("v2", "shadow", records[1].artifact, records[1].sha256)
        record = msgspec.structs.replace(records[0], others=[shadow])
        asyncio.run(append_deployment(KafkaSettings(bootstrap_servers=stack.kafka), NAME, record, 30))
        ask(stack, seconds / 10)
        shadowed = ask(stack, seconds / 4)
    what = f"a prediction at {PER_SECOND:g} requests a second, {done} swaps in {seconds:g} s"
    yield Figure(f"{what}: p50", during.p50_ms, "ms", {"no swap": alone.p50_ms, "a shadow": shadowed.p50_ms})
    yield Figure(f"{what}: p99", during.p99_ms, "ms", {"no swap": alone.p99_ms, "a shadow": shadowed.p99_ms})
    yield Figure(f"{what}: slowest", during.most_ms, "ms", {"no swap": alone.most_ms, "a shadow": shadowed.most_ms})
    yield Figure(f"{what}: failures", during.failures, "requests", {"no swap": alone.failures, "a shadow": shadowed.failures})
    yield Figure(f"{what}: memory of inference", grown / 2**20, "MB more", {})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
