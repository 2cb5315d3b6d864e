"""The whole system in a storm: every process killed, the store emptied, workers paused, while a month of events is replayed.

    TIDEMILL_SEED=7 pytest tests/faults/test_faults.py

What was found is written to .tidemill/faults.json; a run that fails names its seed and its faults.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.checks import Checks, Tally
from tests.faults.driver import Driver
from tests.faults.recording import DAY_MS, DAYS, HOUR_MS, LAST_ORDER_DAY, START_MS, Sent, recording
from tests.faults.storm import Fault, schedule, struck

from tidemill.kafka import close_producer, producer
from tidemill.kafka_topics import ensure_topics, offset_ranges
from tidemill.local.addresses import home_folder
from tidemill.local.stack import External, Stack
from tidemill.offline_store import OfflineStore
from tidemill.playback import Agenda, open_playback
from tidemill.project import Project, load_project
from tidemill.settings import KafkaSettings
from tidemill.topics import predictions_topic, topic_specs

pytestmark = pytest.mark.integration
SEED = int(os.environ.get("TIDEMILL_SEED", "20240101"))
PROJECT = Path(__file__).parent / "fault_project"
MODEL = "sent_back"
TURN_MS = START_MS + 20 * DAY_MS  # before it history is loaded; the model is trained on it
END_MS = START_MS + DAYS * DAY_MS
LOAD_MS, STEP_MS = 12 * HOUR_MS, 2 * HOUR_MS
PATIENCE_SECONDS = 120.0
_CROWD = 3


@pytest.fixture
def project() -> Project:
    """The project of this folder."""
    return load_project(PROJECT)


@pytest.fixture
def stack(project: Project, tmp_path: Path) -> Iterator[Stack]:
    """Kafka, Valkey and every service, with topics, on this folder's project."""

    def topics(stack: Stack) -> None:
        asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(project)))

    home = tmp_path / "stack"
    environment = {"TIDEMILL_DRIFT_WINDOW": "2d"}
    with Stack(
        home, str(PROJECT), external=External(), environment=environment, prepare=topics, timeout_seconds=PATIENCE_SECONDS
    ) as running:
        yield running


@dataclass
class Storm:
    """One run: history, a model, the replay with its faults."""

    stack: Stack
    driver: Driver
    sent: list[Sent]
    faults: list[Fault]
    recoveries: dict[str, float] = field(default_factory=dict)
    _taken: int = 0

    def _until(self, end_ms: int) -> list[Sent]:
        start = self._taken
        while self._taken < len(self.sent) and self.sent[self._taken].known_ms <= end_ms:
            self._taken += 1
        return self.sent[start : self._taken]

    async def load(self) -> None:
        """Publishes history and waits until the offline store has it."""
        for end_ms in range(START_MS + LOAD_MS, TURN_MS + 1, LOAD_MS):
            await self.driver.step(self._until(end_ms), end_ms, ask=False)
        for _ in self.driver.agenda.due(TURN_MS):
            continue
        await self.driver.playback.applied(PATIENCE_SECONDS)
        await self.written()

    async def written(self) -> None:
        """Waits until the offline writer has written all that was routed."""
        ends = await self.driver.playback.ends()

        async def behind() -> object:
            async with httpx.AsyncClient(base_url=self.stack.urls["offline"], trust_env=False) as http:
                positions = (await http.get("/positions")).json()
            return [tp for tp, end in ends.items() if positions.get(tp.topic, {}).get(str(tp.partition), 0) < end]

        await until("the offline writer", behind)

    async def replay(self) -> None:
        """Plays the rest; each fault strikes in the middle of its step, while others ask too."""
        planned = {fault.step: fault for fault in self.faults}
        for number, end_ms in enumerate(range(TURN_MS + STEP_MS, END_MS + 1, STEP_MS)):
            fault = planned.get(number)
            if fault is None:
                await self.driver.step(self._until(end_ms), end_ms, ask=True)
            else:
                await self._step_with(fault, self._until(end_ms), end_ms)

    async def _step_with(self, fault: Fault, sent: list[Sent], end_ms: int) -> None:
        strike = asyncio.create_task(struck(self.stack, fault))
        crowd = [asyncio.create_task(self._crowd(f"{fault.step}-{i}", end_ms - STEP_MS, strike)) for i in range(_CROWD)]
        await self.driver.step(sent, end_ms, ask=True, slowly=True)
        began = await strike
        await asyncio.to_thread(self.stack.wait_ready)
        await self.driver.patiently("feature computation", lambda: self.driver.playback.applied(10))
        self.recoveries[f"{fault.step} {fault.name}"] = round(time.monotonic() - began, 2)
        await asyncio.gather(*crowd)

    async def _crowd(self, name: str, time_ms: int, strike: asyncio.Task[float]) -> None:
        """Asks one prediction after the other from before the fault until some time after it."""
        pick, count, last = random.Random(name), 0, 0
        while not strike.done() or (last := last + 1) <= 5:
            entities = {"customer": pick.randrange(110), "shop": f"s{pick.randrange(22)}", "amount": pick.random() * 50, "items": 2}
            await self.driver.ask_one(f"crowd-{name}-{count}", entities, time_ms)
            count += 1
            await asyncio.sleep(0.05)


async def until(what: str, behind: Callable[[], Any]) -> None:
    """Waits until nothing is behind. Raises AssertionError naming what is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := await behind():
        assert time.monotonic() < deadline, f"{what} is behind: {left}"
        await asyncio.sleep(0.5)


def train(stack: Stack) -> None:
    """Trains and deploys in a process of its own."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": stack.kafka,
        "TIDEMILL_OFFLINE": stack.offline,
        "TIDEMILL_PROJECT": str(PROJECT),
    }
    command = [sys.executable, "-m", "tidemill_training", MODEL, "--until", "2024-01-21"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def settled(storm: Storm, store: OfflineStore, kafka: KafkaSettings, topic: str) -> None:
    """Waits until everything that was published and logged has arrived at its end; a missing result is for the checks to find."""
    await storm.written()
    about = sum(subject is not None for subject, _ in storm.driver.asked.values())

    async def predictions_behind() -> object:
        positions = store.snapshot("predictions").positions
        return [tp for tp, held in (await offset_ranges(kafka, topic)).items() if positions[tp.partition] < held.end]

    await until("the prediction log", predictions_behind)
    deadline = time.monotonic() + PATIENCE_SECONDS / 2
    while len(store.scan("results", ["seq"])) < about and time.monotonic() < deadline:
        await asyncio.sleep(0.5)


async def checked(project: Project, storm: Storm, tally: Tally) -> dict[str, Any]:
    """Compares everything; returns how much was compared."""
    stack, store = storm.stack, OfflineStore(storm.stack.offline)
    checks = Checks(project, storm.driver, store, KafkaSettings(bootstrap_servers=stack.kafka), tally)
    await checks.application_topics()
    await checks.views()
    checks.requests_and_outcomes()
    figures: dict[str, Any] = {"dead_letters": await checks.dead_letters()}
    figures["features_compared"] = await checks.features(stack.urls["serving"], END_MS)
    figures["audited"] = await checks.online_store(stack.redis_url)
    checks.predictions()
    figures["predictions"] = len(storm.driver.answered)
    figures["results"] = dict(await checks.results())
    figures["answered_by_repetition"] = len(checks.answered_by_repetition)
    figures["written_again"] = dict(checks.written_again)
    return figures


async def test_nothing_is_lost_doubled_or_different(project: Project, stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """After every fault the whole system recovers by itself; in the end each store, answer and log is what plain loops say it must be."""
    began, sent = time.monotonic(), recording(SEED)
    faults = schedule(SEED, (LAST_ORDER_DAY - 20) * DAY_MS // STEP_MS)
    told = f"TIDEMILL_SEED={SEED}, faults by step: {'; '.join(f'{fault.step} {fault.name}' for fault in faults)}"
    kafka, tally = KafkaSettings(bootstrap_servers=stack.kafka), Tally()
    async with open_playback(project, stack.kafka, stack.redis_url) as playback:
        client = producer(kafka)
        await client.start()
        try:
            async with httpx.AsyncClient(base_url=stack.urls["inference"], timeout=10, trust_env=False) as http:
                storm = Storm(stack, Driver(playback, client, http, MODEL, Agenda([project.models[MODEL]], STEP_MS)), sent, faults)
                await storm.load()
                await asyncio.to_thread(train, stack)
                await until("the model", lambda: _no_model(http))
                await storm.replay()
                await settled(storm, OfflineStore(stack.offline), kafka, predictions_topic(project.name))
                figures = await checked(project, storm, tally)
        except BaseException as error:
            error.add_note(told)
            raise
        finally:
            await close_producer(client)
    report = {
        "seed": SEED,
        "kinds": len({fault.name for fault in faults}),
        "faults": len(faults),
        "events": len(sent),
        **tally.counts,
        "worst_recovery_seconds": max(storm.recoveries.values()),
        **figures,
        "requests_repeated": storm.driver.repeated,
        "seconds": round(time.monotonic() - began, 1),
        "recoveries": storm.recoveries,
    }
    path = home_folder() / "faults.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1))
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
    assert not tally.findings, "\n".join([told, *tally.findings])
    assert set(figures["results"]) == {"joined", "never"}
    assert figures["dead_letters"] > 100


async def _no_model(http: httpx.AsyncClient) -> bool:
    return (await http.get(f"/v2/models/{MODEL}/ready")).status_code != httpx.codes.OK
