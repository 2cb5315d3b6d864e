"""Learning online on real services: the world turns over, the learner follows it through kills, and its snapshots become the champion; the bytes are those of the log."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.ask import get, post
from tests.cli.living import PATIENCE_SECONDS, Living
from tests.offline.lake import ROOT

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.local.services import choose
from tidemill.local.stack import External, Stack
from tidemill.models.artifact import beside_artifact, inputs_of, save_artifact, stored_manifest
from tidemill.models.learned import FILE, Learned
from tidemill.operations.deploying import Deploying
from tidemill.records import OutcomeRecord, encode
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.retraining import read_retraining
from tidemill.streams.topics import outcomes_topic, topic_specs
from tidemill.training.dataset import TrainingSet
from tidemill.training.version import make_version

pytestmark = pytest.mark.integration

EVERY = 60
PROJECT = """
from tidemill import Event, Model, Online, Outcome, Request

PROJECT = "{name}"
asked = Event("{name}.asked", {{"ride": str, "at": int, "wind": float, "sky": str}}, "at", id="ride", partitions=1)
ended = Event("{name}.ended", {{"ride": str, "at": int, "late": int}}, "at", partitions=1)

def pipeline():
    from river import compose, linear_model, optim, preprocessing
    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    texts = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (numbers + texts) | linear_model.LogisticRegression(optim.SGD(0.3))

late = Model(
    "late", asked, "at", "ride", [Request("wind"), Request("sky", str)], Outcome(ended, "late > 0", "ride", within="1h"), pipeline,
    engine="python", online=Online(every={every}, least={every}, rest="1ms"),
)
"""


class Rides(Living):
    """Rides that are late when there is wind; after the world turned over, when there is none. Inference and prediction logging run as a stack, retraining beside it."""

    def __init__(self, folder: Path, name: str, servers: tuple[str, str]) -> None:
        super().__init__(folder, "rides", PROJECT.format(name=name, every=EVERY), "wind", "a")
        self.name, self._draw, self._count, self.root = name, random.Random(3), 0, str(self.home / "offline")
        self.declared, self.log, self.service = load_project(self.project), folder / "retraining.log", None
        environment = {"TIDEMILL_FLUSH_SECONDS": "0.5", "PYTHONPATH": self.environment["PYTHONPATH"]}
        self.stack = Stack(
            self.home, str(self.project), choose(["inference", "predlog"]), external=External(*servers, self.root), environment=environment,
            timeout_seconds=PATIENCE_SECONDS,
            prepare=lambda stack: asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(self.declared))),
        )  # fmt: skip

    service: subprocess.Popen[bytes] | None

    def trained(self) -> str:
        """A version of the old world, deployed."""
        draw, model = np.random.default_rng(5), self.declared.models["late"]
        values = np.stack([draw.normal(size=200), draw.integers(0, 2, 200)], axis=1).astype(np.float32)
        inputs = inputs_of(model.plan, {"sky": ["blue", "grey"]})
        labels = (values[:, 0] + draw.normal(size=200) * 0.3 > 0).astype(np.float64)
        made = make_version(model, TrainingSet(values, labels, np.arange(200), [""] * 200, inputs), now_ms(), lambda _: None)
        save_artifact(self.root, made.artifact.manifest, made.artifact.file, made.beside)
        asyncio.run(Deploying(self.kafka, self.declared, self.root).act("late", "deploy", made.artifact.manifest.version))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while get(f"{self.stack.urls['inference']}/v2/models/late/ready").is_error:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return made.artifact.manifest.version

    def start(self) -> None:
        """Start retraining."""
        settings = {
            "TIDEMILL_HOST": "127.0.0.1", "TIDEMILL_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "TIDEMILL_OFFLINE": self.root, "TIDEMILL_RETRAINING_LOOK_SECONDS": "0.3", "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services",
        }  # fmt: skip
        with self.log.open("ab") as out:
            self.service = subprocess.Popen([sys.executable, "-m", "tidemill_retraining"], env={**self.environment, **settings}, stderr=out)

    def kill(self) -> None:
        """End it without warning, and its learner with it."""
        if self.service is not None:
            self.service.send_signal(signal.SIGKILL)
            self.service.wait(PATIENCE_SECONDS)

    def happen(self, count: int) -> list[dict[str, Any]]:
        """Rides of the new world, asked for and ended; one in ten is asked for twice."""
        rides: list[dict[str, Any]] = []
        for _ in range(count):
            self._count += 1
            wind = self._draw.gauss(0, 1)
            late = int(wind + self._draw.gauss(0, 0.3) < 0)
            rides.append(
                {
                    "ride": f"r{self._count}",
                    "wind": wind,
                    "late": late,
                    "sky": self._draw.choices(["blue", "grey", "green"], [48, 48, 4])[0],
                }
            )
        asked = [
            {"id": f"{ride['ride']}{again}", "subject": ride["ride"], "entities": {"wind": ride["wind"], "sky": ride["sky"]}}
            for place, ride in enumerate(rides)
            for again in (["", "b"] if place % 10 == 0 else [""])
        ]
        answer = post(f"{self.stack.urls['inference']}/predict/late", json={"instances": asked}, timeout=180)
        assert not answer.is_error, answer.text
        at = now_ms() + 1
        outcomes = [
            encode(OutcomeRecord("late", ride["ride"], float(ride["late"]), at, at, (f"{self.name}.ended", 0, place)))
            for place, ride in enumerate(rides)
        ]

        async def write() -> None:
            async with started_producer(self.kafka) as made:
                await send_wave(made, {(outcomes_topic(self.name), 0): [(b"", outcome, []) for outcome in outcomes]})

        asyncio.run(write())
        return rides

    def steps(self) -> list[RetrainingRecord]:
        """All so far, without interim judgements."""
        return [record for record in asyncio.run(read_retraining(self.kafka, self.name)) if record.step != "waiting"]

    def until(self, step: str, times: int = 1) -> RetrainingRecord:
        """Let rides happen until a step was taken so many times; return the last."""
        deadline = time.monotonic() + 2 * PATIENCE_SECONDS
        while len(found := [record for record in self.steps() if record.step == step]) < times:
            assert time.monotonic() < deadline, f"{self.steps()}\n{self.log.read_text(errors='replace')[-3000:]}"
            self.happen(20)
            time.sleep(1)
        return found[-1]

    def kept(self, line: str) -> Learned:
        """The newest snapshot."""
        return Learned.decoded(beside_artifact(self.root, stored_manifest(self.root, "late", line)[0], FILE))

    def learned_again(self, line: str, outcomes: int) -> bytes:
        """What one learner makes of the whole log, that nobody ended, after so many outcomes."""
        out = self.folder / "again"
        command = [sys.executable, "-m", "tests.retraining.again", self.kafka.bootstrap_servers, self.name, self.root, line]
        environment = {**self.environment, "PYTHONHASHSEED": "0", "PYTHONPATH": f"{self.environment['PYTHONPATH']}:{ROOT}"}
        subprocess.run([*command, str(EVERY), str(outcomes), str(out)], env=environment, check=True, timeout=PATIENCE_SECONDS)
        return out.read_bytes()


@pytest.fixture
def rides(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rides]:
    """A project of its own on the shared servers."""
    made = Rides(tmp_path, topic_prefix, (kafka, redis_url))
    with made.stack:
        yield made
        made.kill()


@pytest.mark.share(3, 0)
def test_a_learner_follows_a_world_that_turned_over(rides: Rides) -> None:
    """The frozen version is wrong from now on. A snapshot is shown to be better, and answers; the next one takes its place; kills cost nothing, and each outcome is
    learned once."""
    frozen = rides.trained()
    rides.start()
    rides.until("shadow")
    rides.kill()
    rides.start()
    first = rides.until("promoted")
    second = rides.until("promoted", 2)
    assert first.evidence[0].verdict == "for"
    assert [first.champion, second.champion] == [frozen, first.version]
    assert first.version < second.version
    kept = rides.kept(frozen)
    assert kept.encoded() == rides.learned_again(frozen, kept.learned)
    assert kept.left_out["an outcome that was learned already"] > 0
    assert sum((one.answer[1] > 0.5) == bool(one.label) for one in kept.tail[-100:]) > 70
    serving = get(f"{rides.stack.urls['inference']}/models/late").json()["serving"]
    assert len(serving) <= 2
    listed = rides.run("models", "list", "late")
    assert f"{second.version}" in listed
    assert f"outcomes learned since {frozen}" in listed
    assert "equal bit for bit" in rides.run("replay")
