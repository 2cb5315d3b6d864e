"""A tiny project with a real broker: predictions and results of a world that moves, the service as a process, and its alerts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
from aiokafka import TopicPartition
from tests.ask import get as ask
from tests.drift.samples import manifest
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import load_project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.kernel.keys import partition_of
from tidemill.models.artifact import save_artifact
from tidemill.records import AlertRecord, PredictionRecord, ResultRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import alerts_topic, predictions_topic, results_topic, topic_specs

ROOT = Path(__file__).parents[2]
DAY_MS = 86_400_000
START_MS = 19_000 * DAY_MS
PROJECT = """
from tidemill.declarations import Event, Model, Outcome, Request

PROJECT = {name!r}
asked = Event("asked", {{"at": int, "id": str, "size": float, "load": float}}, time="at")
done = Event("done", {{"at": int, "id": str, "late": int}}, time="at", id="id")
late = Model("late", asked, "at", "id", [Request("size"), Request("load")], Outcome(done, "late > 0", subject="id", within="6h"), lambda: None)
"""


class Rig:
    """One project on one broker; a day is a window of 1200 predictions."""

    def __init__(self, name: str, folder: Path, kafka: str, rows: int = 1200) -> None:
        self.name, self.folder, self.rows = name, folder, rows
        (folder / "project.py").write_text(PROJECT.format(name=name))
        self.project = load_project(folder)
        self.settings = KafkaSettings(bootstrap_servers=kafka)
        self.random = np.random.default_rng(5)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "drift.log"
        self._seq = 0
        columns = {"size": self.random.normal(size=5000), "load": self.random.lognormal(size=5000)}
        model = manifest(columns, self.random.beta(2, 5, 2000), auc=0.69, auc_error=0.01)
        onnx = b"not asked for"
        digest = hashlib.sha256(onnx).hexdigest()
        save_artifact(str(folder / "lake"), msgspec.structs.replace(model, onnx_sha256=digest), onnx)
        broken = msgspec.structs.replace(model, onnx_sha256=digest, version="broken", metrics={})
        save_artifact(str(folder / "lake"), broken, onnx)

    def day(self, day: int, *, shift: float = 0.0, turned: bool = False, version: str = "v1") -> dict[tuple[str, int], list[bytes]]:
        """Predictions and results of one day, by topic and partition. `shift`: of the input `size`; `turned`: outcomes do not follow scores."""
        wave: dict[tuple[str, int], list[bytes]] = {}
        for i in range(self.rows):
            time_ms = START_MS + day * DAY_MS + i * DAY_MS // self.rows
            output = float(self.random.beta(2, 5))
            outcome = float(self.random.random() < (1 - output if turned else output))
            name = f"{day}-{i}-{version}"
            inputs: list[float | None] = [float(np.float32(self.random.normal(shift))), float(np.float32(self.random.lognormal()))]
            prediction = PredictionRecord(name, "late", version, time_ms, time_ms, inputs, output, name)
            place = predictions_topic(self.name), partition_of(name.encode(), 4)
            wave.setdefault(place, []).append(encode(prediction))
            result = ResultRecord(self._seq, name, "late", version, name, time_ms, output, "joined", time_ms + 3_600_000, outcome)
            wave.setdefault((results_topic(self.name), 0), []).append(encode(result))
            self._seq += 1
        return wave

    def produce(self, *waves: dict[tuple[str, int], list[bytes]]) -> None:
        """Write waves in order."""

        async def write() -> None:
            specs = topic_specs(self.project)
            topics = (predictions_topic(self.name), results_topic(self.name), alerts_topic(self.name))
            await ensure_topics(self.settings, {topic: specs[topic] for topic in topics})
            writer = producer(self.settings)
            await writer.start()
            for wave in waves:
                await send_wave(writer, {place: [(None, value, []) for value in values] for place, values in wave.items()})
            await close_producer(writer)

        asyncio.run(write())

    def start(self) -> None:
        """Start the service as a process."""
        settings = {
            "TIDEMILL_HOST": "127.0.0.1", "TIDEMILL_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "TIDEMILL_PROJECT": str(self.folder), "TIDEMILL_OFFLINE": str(self.folder / "lake"), "TIDEMILL_DRIFT_WINDOW": "1d",
            "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}",
        }  # fmt: skip
        with self.log.open("ab") as out:
            self.processes.append(subprocess.Popen([sys.executable, "-m", "tidemill_drift"], env={**os.environ, **settings}, stderr=out))

    def kill(self) -> None:
        """End the process without warning."""
        self.processes[-1].send_signal(signal.SIGKILL)
        self.processes[-1].wait()

    def stop(self) -> None:
        """End whatever runs."""
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self) -> str:
        """The log of all processes."""
        return self.log.read_text(errors="replace")

    def wait_said(self, text: str) -> None:
        """Return once the log has a text."""
        self.until(lambda: text in self.said())

    def get(self, path: str) -> str:
        """Ask the newest process; empty while it does not answer."""
        ports = re.findall(r'"message":"listening".*"port":(\d+)', self.said())
        try:
            return ask(f"http://127.0.0.1:{ports[-1]}{path}").text if ports else ""
        except httpx.HTTPError:
            return ""

    def alerts(self) -> list[AlertRecord]:
        """All alerts so far."""
        return [decoder(AlertRecord).decode(value) for value in asyncio.run(self._values())]

    async def _values(self) -> list[bytes]:
        reader, partition, found = consumer(self.settings), TopicPartition(alerts_topic(self.name), 0), list[bytes]()
        await reader.start()
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        end = (await reader.end_offsets([partition]))[partition]
        while await reader.position(partition) < end:
            found += [record.value for records in (await reader.getmany(timeout_ms=200)).values() for record in records]
        await reader.stop()
        return found

    def wait_judged(self, windows: int) -> None:
        """Return once the newest process has judged so many windows."""
        self.until(lambda: self._judged() >= windows)

    def _judged(self) -> float:
        return sum(float(value) for value in re.findall(r"^tidemill_drift_windows_total.* ([0-9.]+)$", self.get("/metrics"), re.MULTILINE))

    def until(self, holds: Callable[[], bool], limit_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something to hold; fail with the end of the log when it takes too long for any machine."""
        end = time.monotonic() + limit_seconds
        while not holds():
            assert time.monotonic() < end, self.said()[-4000:]
            time.sleep(0.1)


def told(alerts: list[AlertRecord]) -> list[tuple[str, str, str, int]]:
    """What alerts say, with the day of their window, in a fixed order."""
    return sorted((a.kind, a.subject, a.state, (a.start - START_MS) // DAY_MS) for a in alerts)
