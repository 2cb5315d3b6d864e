"""`tidemill apply` as a process that is killed, or frozen, at random moments."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.injections import orders
from tests.faults.injections.ground import HOOKED
from tests.faults.injections.orders import Order
from tests.features.rig import ROOT
from tests.frozen import freeze
from tests.operations.fill.shop import T0, Raw, archive, commit, declare, expected, folded, publish

from tidemill.catalogue.definitions import Definitions, project_of
from tidemill.declarations.project import Project
from tidemill.kafka.topics import ensure_topics
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions
from tidemill.streams.topics import topic_specs

pytestmark = pytest.mark.integration
EACH = 12_000


class Command:
    """The command line over one shop."""

    def __init__(self, kafka: str, name: str, folder: Path) -> None:
        self.settings, self.name, self.folder = KafkaSettings(bootstrap_servers=kafka), name, folder
        self.orders = folder / "orders"
        self.environment = {
            **os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": "redis://127.0.0.1:1/0", "TIDEMILL_OFFLINE": str(folder / "offline"),
            "TIDEMILL_PROJECT": str(folder / "shop"), "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services:{ROOT}", "COLUMNS": "200",
            **{f"TIDEMILL_{name}_URL": "http://127.0.0.1:1" for name in ("INGESTION", "FEATURES", "OFFLINE")},  # no service runs here
        }  # fmt: skip

    def start(self, *arguments: str, order: Order | None = None) -> subprocess.Popen[bytes]:
        """A process of it. `order`: what it shall do when it reaches a point of its work."""
        line, environment = ["-c", "from tidemill.cli import main; main()"], self.environment
        if order is not None:
            orders.give(self.orders, arguments[0], order)
            line = ["-m", HOOKED]
            environment = {**environment, "HOOKED_ORDERS": str(self.orders), "HOOKED_PROCESS": arguments[0]}
        return subprocess.Popen([sys.executable, *line, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    async def reached(self, process: subprocess.Popen[bytes]) -> None:
        """Return when a process carries out its order."""
        while orders.waiting(self.orders, "apply"):
            assert process.poll() is None, await self.output(process)
            await asyncio.sleep(0.02)

    async def output(self, process: subprocess.Popen[bytes]) -> str:
        """What it printed until it ended."""
        return (await asyncio.to_thread(process.communicate, timeout=180))[0].decode()

    async def run(self, *arguments: str) -> str:
        """What a command prints that ends well."""
        process = self.start(*arguments)
        said = await self.output(process)
        assert process.returncode == 0, said
        return said

    async def definitions(self) -> Definitions:
        """The catalogue now."""
        return await read_definitions(self.settings, self.name)

    async def begun(self) -> subprocess.Popen[bytes]:
        """An `apply` that has written its first record."""
        before = (await self.definitions()).number
        process = self.start("apply", "--yes", "--no-wait")
        while (await self.definitions()).number == before:
            assert process.poll() is None, await self.output(process)
            await asyncio.sleep(0.02)
        return process


@pytest.fixture
async def command(kafka: str, topic_prefix: str, tmp_path: Path) -> Command:
    """A shop whose events are archived and routed, with version 1 in force; declared now is another version."""
    made, project = Command(kafka, topic_prefix, tmp_path), declare(tmp_path / "shop", topic_prefix)
    await ensure_topics(made.settings, topic_specs(project))
    await made.run("apply", "--yes")
    events = shop_events(project)
    for first in range(0, EACH, 4_000):
        await publish(made.settings, [event for event in events if first <= event.offset < first + 4_000])
    archive(OfflineStore(tmp_path / "offline"), project, [event for event in events if event.offset < EACH // 2])
    await commit(made.settings, project, dict.fromkeys(range(3), EACH))
    declare(tmp_path / "shop", topic_prefix, later=True)
    return made


def shop_events(project: Project) -> list[Raw]:
    """Events of three partitions; each card's come from one of them."""
    topic = project.events["paid"].topic
    return [
        Raw(topic, p, n, T0 + n, {"at": T0 + n, "card": f"{p}{n % 7}", "amount": n / 4, "no": f"{p}-{n}", "tip": n / 8})
        for p in range(3)
        for n in range(EACH)
    ]


async def check(command: Command) -> None:
    """The newest version was handed over, and its log holds what lies before the hand-over, once."""
    now = await command.definitions()
    newest = now.version("cards", now.newest("cards"))
    assert newest.handover is not None
    project = project_of(now, command.name)
    view = project.views[f"cards@v{newest.version}"]
    events = [event for event in shop_events(project) if event.offset < newest.handover[event.partition]]
    states, folds = await folded(command.settings, command.name, view)
    assert states == expected(view, events)
    assert [(fold.fence.duplicates, fold.fence.resent) for fold in folds] == [(0, 0), (0, 0)]


async def test_killed_at_random_moments_and_applied_again(command: Command) -> None:
    """However often it was killed: the next one gives up what was broken off, and in the end every event is there once."""
    chance = random.Random(11)
    for _ in range(3):
        process = await command.begun()
        await asyncio.sleep(chance.random() * 0.8)
        process.kill()
        await command.output(process)
    assert "handed over" in await command.run("apply", "--yes", "--no-wait")
    await check(command)
    now = await command.definitions()
    assert [found.version for found in now.views] == [1, now.newest("cards")]


async def test_a_frozen_one_that_wakes_up_changes_nothing(command: Command) -> None:
    """It was asleep while another one did the whole work: it ends with an error, and nobody reads what it wrote."""
    process = command.start("apply", "--yes", "--no-wait", order=Order("after_begin", "sleep", seconds=10))
    await command.reached(process)
    freeze(process.pid)
    assert (await command.definitions()).views[-1].handover is None
    await command.run("apply", "--yes", "--no-wait")
    before = await command.definitions()
    process.send_signal(signal.SIGCONT)
    said = await command.output(process)
    assert process.returncode == 1
    assert "was changed by somebody else meanwhile" in said
    assert await command.definitions() == before
    await check(command)


async def test_a_plan_says_what_would_change(command: Command) -> None:
    """New fields and features, the version that is filled with its events; nothing is written. Without an answer, apply changes nothing."""
    before = await command.definitions()
    said = await command.run("plan")
    for text in (
        "~ event paid: changed", "fields: with tip (float | None)", "~ view cards: changed", 'features: with mean("tip")',
        "version 2 is filled: 18,000 archived events to fold, and 18,000 from the topic",
    ):  # fmt: skip
        assert text in said
    process = command.start("apply")
    await command.output(process)
    assert process.returncode == 1
    assert await command.definitions() == before
