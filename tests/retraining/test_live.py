"""The loop closed on real services: the world turns over, an alert comes, and a version that knows the new world becomes the champion; nobody does anything."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.ask import get, post
from tests.cli.living import PATIENCE_SECONDS, Living
from tests.retraining.made import alert

from tidemill.cli.stack import _wished
from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import ensure_topics
from tidemill.local.services import choose
from tidemill.local.stack import External, Stack
from tidemill.records import AlertRecord
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert
from tidemill.streams.retraining import read_retraining
from tidemill.streams.topics import topic_specs

pytestmark = [pytest.mark.integration, pytest.mark.soak]

SERVICES = ("ingestion", "offline", "inference", "predlog")
PROJECT = """
from tidemill import Event, Model, Outcome, Request, Retrain

PROJECT = "{name}"
asked = Event("{name}.asked", {{"ride": str, "at": int, "wind": float}}, "at", id="ride", partitions=1)
ended = Event("{name}.ended", {{"ride": str, "at": int, "late": int}}, "at", partitions=1)

def pipeline():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), LogisticRegression())

late = Model(
    "late", asked, "at", "ride", [Request("wind")], Outcome(ended, "late > 0", "ride", within="1h"), pipeline,
    retrain=Retrain(on=["performance"], rest="1h", steps=[0.5], least=60),
)
"""


class Rides(Living):
    """Rides that are late when there is wind; after the world turned over, when there is none."""

    def __init__(self, folder: Path, name: str, servers: tuple[str, str]) -> None:
        super().__init__(folder, "rides", PROJECT.format(name=name), "wind", "a")
        self.name, self._draw, self._count = name, random.Random(3), 0
        environment = {
            "TIDEMILL_FLUSH_SECONDS": "0.5", "TIDEMILL_RETRAINING_LOOK_SECONDS": "0.5", "PYTHONPATH": self.environment["PYTHONPATH"],
        }  # fmt: skip
        project = load_project(self.project)
        self.stack = Stack(
            self.home, str(self.project), choose([*SERVICES, *_wished(project)]), external=External(*servers, str(self.home / "offline")),
            environment=environment, timeout_seconds=PATIENCE_SECONDS,
            prepare=lambda stack: asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(project))),
        )  # fmt: skip

    def rides(self, count: int, *, turned: bool) -> list[dict[str, Any]]:
        """New ones."""
        made = []
        for _ in range(count):
            self._count += 1
            wind = self._draw.gauss(0, 1)
            made.append({"ride": f"r{self._count}", "wind": wind, "late": int((wind + self._draw.gauss(0, 0.3) > 0) != turned)})
        return made

    def tell(self, kind: str, rides: list[dict[str, Any]], field: str) -> None:
        """Publish an event of each."""
        at = now_ms()
        body = [{"type": f"{self.name}.{kind}", "data": {"ride": ride["ride"], field: ride[field], "at": at}} for ride in rides]
        answer = post(f"{self.stack.urls['ingestion']}/events", json=body, timeout=180)
        assert not answer.is_error, answer.text

    def happen(self, count: int, *, turned: bool) -> None:
        """Rides that nobody asks a prediction for."""
        rides = self.rides(count, turned=turned)
        self.tell("asked", rides, "wind")
        time.sleep(0.01)
        self.tell("ended", rides, "late")

    def predicted(self, count: int) -> None:
        """Rides that are asked for, and end as the new world wants."""
        rides = self.rides(count, turned=True)
        asked = [{"id": ride["ride"], "subject": ride["ride"], "entities": {"wind": ride["wind"]}} for ride in rides]
        answer = post(f"{self.stack.urls['inference']}/predict/late", json={"instances": asked}, timeout=180)
        assert not answer.is_error, answer.text
        time.sleep(0.01)
        self.tell("ended", rides, "late")

    def alarm(self, told: AlertRecord) -> None:
        """What drift detection would say."""

        async def write() -> None:
            async with started_producer(self.kafka) as made:
                await append_alert(made, self.name, told)

        asyncio.run(write())

    def steps(self) -> list[RetrainingRecord]:
        """Of the run, without interim judgements."""
        return [record for record in asyncio.run(read_retraining(self.kafka, self.name)) if record.step != "waiting"]


def test_nobody_does_anything(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """A model that was right is wrong now. From the alert on, only requests and outcomes come: the new version is kept, and answers."""
    rides = Rides(tmp_path, topic_prefix, (kafka, redis_url))
    with rides.stack:
        rides.happen(300, turned=False)
        rides.run("train", "late")
        deadline = time.monotonic() + 3 * PATIENCE_SECONDS
        while get(f"{rides.stack.urls['inference']}/v2/models/late/ready").is_error:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        first = get(f"{rides.stack.urls['inference']}/models/late").json()["serving"][0]["version"]
        rides.happen(1_500, turned=True)
        rides.alarm(alert("a1", version=first))
        while "kept" not in [record.step for record in rides.steps()]:
            assert time.monotonic() < deadline, rides.steps()
            rides.predicted(20)
            time.sleep(0.5)
        steps = rides.steps()
        assert [record.step for record in steps] == ["begun", "trained", "rehearsed", "shadow", "canary", "promoted", "kept"]
        new = steps[-1].version
        assert (steps[0].champion, steps[0].causes) == (first, ["a1"])
        serving = get(f"{rides.stack.urls['inference']}/models/late").json()["serving"]
        assert [seat["version"] for seat in serving] == [new]
        assert f"late@{steps[0].run} kept" in rides.run("status")
