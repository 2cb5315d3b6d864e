"""A project on a real broker: the service as a process, a training that is prepared, and answers and outcomes as inference and prediction logging write them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.patience import PATIENCE_SECONDS
from tests.retraining.made import answered, became
from tests.retraining.models import version
from tests.retraining.trainer import keep

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.models.artifact import save_artifact
from tidemill.operations.deploying import Deploying
from tidemill.records import AlertRecord, DeploymentRecord, encode
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert
from tidemill.streams.retraining import append_retraining, read_retraining
from tidemill.streams.topics import predictions_topic, results_topic, shadows_topic, topic_specs
from tidemill_retraining.evidence import GRACE_MS

ROOT = Path(__file__).parents[2]
PROJECT = """
from tidemill import Event, Model, Outcome, Request, Retrain

PROJECT = {name!r}
asked = Event("{name}.asked", {{"at": int, "id": str, "size": float}}, time="at")
done = Event("{name}.done", {{"at": int, "id": str, "late": int}}, time="at", id="id")
late = Model(
    "late", asked, "at", "id", [Request("size")], Outcome(done, "late > 0", subject="id", within="6h"), lambda: None,
    retrain=Retrain(on=["performance"], rest="1ms", at_most_a_day=20, steps=[0.5], least=60, most=400),
)
"""
SETTINGS = {
    "TIDEMILL_RETRAINING_LOOK_SECONDS": "0.2",
    "TIDEMILL_RETRAINING_MEGABYTES": "1500",
    "TIDEMILL_RETRAINING_REHEARSAL_SECONDS": "5",
}


class Rig:
    """One project on one broker, with a champion v1."""

    def __init__(self, name: str, folder: Path, kafka: str, declared: str = PROJECT) -> None:
        self.name, self.folder, self.root, self.prepared = name, folder, folder / "lake", folder / "prepared"
        (folder / "project.py").write_text(declared.format(name=name))
        self.project, self.settings = load_project(folder), KafkaSettings(bootstrap_servers=kafka)
        self.draw, self.log, self.process = np.random.default_rng(6), folder / "retraining.log", None
        self.deploying = Deploying(self.settings, self.project, str(self.root))
        self._count, self._waited = 0, 0
        asyncio.run(ensure_topics(self.settings, topic_specs(self.project)))
        first = version("v1")
        save_artifact(str(self.root), first.manifest, first.onnx)
        self.prepare()
        asyncio.run(self.deploying.act("late", "deploy", "v1"))

    process: subprocess.Popen[bytes] | None

    def prepare(self, kind: str = "good", order: str = "") -> None:
        """What the next training stores, and what it does before."""
        keep(self.prepared, version("next", kind))
        if order:
            (self.prepared / "orders").write_text(order)

    def start(self, **more: str) -> None:
        """Start the service."""
        command = f"{sys.executable} -m tests.retraining.trainer {self.prepared} {self.root} {{model}} {{version}}"
        settings = {
            "TIDEMILL_HOST": "127.0.0.1", "TIDEMILL_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers,
            "TIDEMILL_PROJECT": str(self.folder), "TIDEMILL_OFFLINE": str(self.root), "TIDEMILL_RETRAINING_COMMAND": command,
            "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}", **SETTINGS, **more,
        }  # fmt: skip
        with self.log.open("ab") as out:
            self.process = subprocess.Popen([sys.executable, "-m", "tidemill_retraining"], env={**os.environ, **settings}, stderr=out)

    def kill(self) -> None:
        """End the service without warning."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def alert(self, alert: AlertRecord) -> None:
        """Write an alert, as drift detection does."""

        async def write() -> None:
            async with started_producer(self.settings) as made:
                await append_alert(made, self.name, alert)

        asyncio.run(write())

    def ask(self) -> None:
        """Ask for a run by hand."""
        at = now_ms()
        asyncio.run(append_retraining(self.settings, self.name, RetrainingRecord("late", at, "asked", at, "asked", "hand")))

    def steps(self) -> list[RetrainingRecord]:
        """All steps so far."""
        return asyncio.run(read_retraining(self.settings, self.name))

    def taken(self) -> list[str]:
        """The steps of the newest run, without interim judgements."""
        runs = [record for record in self.steps() if record.step not in ("asked", "skipped", "waiting")]
        return [record.step for record in runs if record.run == runs[-1].run]

    def deployments(self) -> list[DeploymentRecord]:
        """All deployments so far."""
        return asyncio.run(self.deploying.history())["late"]

    def traffic(self, requests: int, noise: dict[str, float], *, answers: float = 1.0) -> None:
        """Requests that the serving versions answer: the truth with so much noise each (default 0.3); then their outcomes. `answers`: the share of them that shadows answer."""
        serving = self.deployments()[-1].versions()
        wave: dict[tuple[str, int], list[bytes]] = {
            (topic(self.name), 0): [] for topic in (predictions_topic, shadows_topic, results_topic)
        }
        served = now_ms() - 2 * GRACE_MS
        for place in range(requests):
            self._count += 1
            name, truth = f"r{self._count}", self.draw.uniform()
            outputs = {item.version: float(np.clip(truth + self.draw.normal(0, noise.get(item.version, 0.3)), 0, 1)) for item in serving}
            answering = [item for item in serving if item.share > 0]
            by = answering[int(self.draw.choice(len(answering), p=[item.share for item in answering]))].version
            wave[predictions_topic(self.name), 0].append(encode(answered(name, by, outputs[by], served, inputs=[1.0])))
            for item in serving:
                if item.role == "shadow" and place < answers * requests:
                    wave[shadows_topic(self.name), 0].append(
                        encode(answered(name, item.version, outputs[item.version], served, inputs=[1.0]))
                    )
            wave[results_topic(self.name), 0].append(encode(became(name, by, outputs[by], float(self.draw.uniform() < truth))))

        async def write() -> None:
            async with started_producer(self.settings) as made:
                await send_wave(made, {place: [(None, value, []) for value in values] for place, values in wave.items() if values})

        asyncio.run(write())

    def tidemill(self, *arguments: str, code: int = 0) -> str:
        """What a command prints, when it ends with this code."""
        environment = {
            **os.environ, "KAFKA_BOOTSTRAP_SERVERS": self.settings.bootstrap_servers, "TIDEMILL_PROJECT": str(self.folder), "COLUMNS": "300",
            "REDIS_URL": "redis://127.0.0.1:1", "TIDEMILL_OFFLINE": str(self.root), "TIDEMILL_HOME": str(self.folder / "home"),
            "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services",
        }  # fmt: skip
        command = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def said(self) -> str:
        """The log of all processes."""
        return self.log.read_text(errors="replace")

    def wait(self, step: str) -> RetrainingRecord:
        """Return the newest step once the log says that this one was taken after the one waited for before."""
        self.until(lambda: step in self._logged()[self._waited :])
        self._waited = self._logged().index(step, self._waited) + 1
        return next(record for record in reversed(self.steps()) if record.step == step)

    def _logged(self) -> list[str]:
        return re.findall(r'"message":"step".*?"step":"([a-z ]+)"', self.said())

    def until(self, holds: Callable[[], bool], limit_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for something to hold; fail with what was said when it takes too long for any machine."""
        end = time.monotonic() + limit_seconds
        while not holds():
            assert time.monotonic() < end, f"{self.steps()}\n{self.said()[-3000:]}"
            time.sleep(0.1)

    @property
    def port(self) -> int:
        """Where the newest process listens."""
        return int(re.findall(r'"message":"listening".*"port":(\d+)', self.said())[-1])
