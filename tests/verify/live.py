"""A generated project on real services: its stream is published while `tidemill apply` puts its changes in force, and processes are killed.

In the end everything settles, and `tidemill verify` must find no difference.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import hypothesis
from aiokafka import TopicPartition
from tests.ask import get as ask
from tests.ask import post
from tests.verify.changing import changing
from tests.verify.projects import Change, Generated, Written
from tests.verify.publishing import COPIES, Publisher

from tidemill.archive.columns import event_folder
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError
from tidemill.kafka.topics import committed, offset_ranges
from tidemill.local.services import choose
from tidemill.local.stack import External, Stack
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.operations.fill.folded import wait_folded
from tidemill.operations.followers import wait_followed
from tidemill.redis.client import redis_client
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions
from tidemill.streams.following import in_force
from tidemill.streams.topics import ingestion_group, view_topic
from tidemill.verify.compare import SETTLED_MS

ROOT = Path(__file__).parents[2]
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]
SERVICES = ("ingestion", "features", "offline", "serving")
OF_MODELS = ("inference", "predlog")
_AWAY = "offline, for a while"
PATIENCE_SECONDS = 240.0

HEAD = """
import tidemill as tm
from tidemill import Entity, Event, FeatureView
PROJECT = {name!r}
"""
MODEL = """
def pipeline():
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=-1.0), GradientBoostingRegressor(n_estimators=5))

outcome = tm.Outcome(event, "x > 1", "shop", within="2s", absent=0)
m = tm.Model("m", event, "at", "shop", [{inputs}], outcome, pipeline)
"""


class Verified(NamedTuple):
    """What `tidemill verify` compared, and what was done on the way."""

    values: int
    undecided: int
    withheld: int
    changes: int
    predictions: int
    killed: list[str]


def file_of(written: Written, name: str, *, modelled: bool) -> str:
    """The `project.py` of a generated project. `modelled`: with a model over all views."""
    inputs = ['tm.Request("y")']
    for view in written.declared().views.values():
        numbers = [feature.name for feature in view.served if feature.aggregation.gives is not list]
        inputs += [f"{view.name}.select({', '.join(map(repr, numbers))})"] * bool(numbers)
    model = MODEL.format(inputs=", ".join(inputs)) if modelled else ""
    return "\n".join([HEAD.format(name=name), *written.lines(f"{name}.told"), model])


def drawn(seed: int) -> Generated:
    """The changing project of a seed."""
    found: list[Generated] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=2, phases=[hypothesis.Phase.generate], database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(changing())
    def take(made: Generated) -> None:
        found.append(made)

    take()
    return found[-1]  # the first is the simplest there is


@contextmanager
def servers(home: Path) -> Iterator[External]:
    """Kafka and Valkey for any number of projects."""
    with Stack(home, services=(), servers=("kafka", "valkey"), timeout_seconds=PATIENCE_SECONDS) as stack:
        yield External(stack.kafka, stack.redis_url)


class Live:
    """One project. `external`: its servers; `modelled`: with a model that is trained before the first change, and predicts from then on."""

    def __init__(self, made: Generated, seed: int, home: Path, external: External, *, modelled: bool) -> None:
        self.made, self.home, self._random, self._modelled = made, home, random.Random(seed), modelled
        self._predicts, self._predicted = False, 0
        self.name = f"{home.name.replace('-', '_')}_{seed}"
        self._kafka = KafkaSettings(bootstrap_servers=external.kafka or "")
        self._publisher = Publisher(self._kafka, self._topic, made.stream[-1].known_ms, random.Random(seed))
        self._killed = list[str]()
        (home / "project").mkdir(parents=True)
        self._declare(made.written)
        self.environment = {
            **os.environ, "TIDEMILL_HOME": str(home), "TIDEMILL_PROJECT": str(home / "project"), "COLUMNS": "300",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services"))),
        }  # fmt: skip
        external = External(external.kafka, external.redis_url, str(home / "offline"))
        self.stack = Stack(
            home, str(home / "project"), choose([*SERVICES, *OF_MODELS] if modelled else SERVICES), external=external, timeout_seconds=PATIENCE_SECONDS,
            environment={"TIDEMILL_FLUSH_SECONDS": "0.5", "PYTHONPATH": self.environment["PYTHONPATH"]},
        )  # fmt: skip

    @property
    def _topic(self) -> str:
        return f"{self.name}.told"

    def run(self) -> Verified:
        """Everything. Raises AssertionError with what `tidemill verify` says when a value differs."""
        with self.stack:
            self._apply(kill=False)
            begin = 0
            for change in self.made.changes:
                self._publisher.publish(self.made.stream[begin : change.after])
                if self._modelled and not begin:
                    self._train()
                rest = self.made.stream[change.after :] or self.made.stream[-1:]
                with self._publisher.meanwhile(rest):
                    self._change(change)
                self._predict()
                begin = change.after
            self._publisher.publish(self.made.stream[begin:])
            self._predict()
            self._settle()
            return self._verify()

    def _train(self) -> None:
        """A version that serves; none when the events until now give no examples."""
        time.sleep(3)  # until the answers of the events are due
        code, said = self._command("train", "m")
        if code:
            assert "no training examples" in said or "examples are too few" in said, said
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ask(f"{self.stack.urls['inference']}/v2/models/m/ready").is_error:
            assert time.monotonic() < deadline, "the model does not become ready"
            time.sleep(0.2)
        self._predicts = True
        self._predict()

    def _predict(self) -> None:
        """Ask for a prediction of each copy, until each is answered."""
        for copy in range(COPIES if self._predicts else 0):
            entities = {"shop": f"n{copy}", "number": 7 + 100 * copy, "y": 1.0}
            body, deadline = {"entities": entities, "id": f"p{self._predicted}"}, time.monotonic() + PATIENCE_SECONDS
            while True:
                with suppress(httpx.TransportError):
                    answer = post(f"{self.stack.urls['inference']}/predict/m", json=body, timeout=180)
                    if answer.is_success:
                        break
                    assert answer.is_server_error, answer.text
                assert time.monotonic() < deadline, "no prediction"
                time.sleep(0.2)
            self._predicted += 1

    def _command(self, *arguments: str) -> tuple[int, str]:
        """The exit code of a command, and what it says."""
        done = subprocess.run(
            [*TIDEMILL, *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def _declare(self, written: Written | None) -> None:
        assert written is not None
        (self.home / "project" / "project.py").write_text(file_of(written, self.name, modelled=self._modelled))

    def _change(self, change: Change) -> None:
        """Put the next declarations in force, while a process is killed, or the offline writer is away."""
        assert change.written is not None
        asyncio.run(self._publisher.extend(change.written.partitions))
        victim = self._random.choice([None, _AWAY, "apply", "apply", *SERVICES[:3], *(OF_MODELS if self._modelled else ())])
        if victim == _AWAY:  # events that are accepted now are archived when the change is known
            self.stack.halt("offline")
            self._publisher.publish(self.made.stream[change.after - 1 : change.after])
        self._declare(change.written)
        strike = threading.Timer(self._random.uniform(0.5, 4), self._strike, [victim])
        strike.start()
        self._apply(kill=victim == "apply")
        strike.join()

    def _strike(self, victim: str | None) -> None:
        if victim == _AWAY:
            self.stack.resume("offline")
        elif victim in self.stack.urls:
            self.stack.kill(victim)
        if victim not in (None, "apply"):
            self._killed.append(victim)

    def _apply(self, *, kill: bool) -> None:
        """Run `tidemill apply` until it ends well. `kill`: the first one is killed at some moment."""
        for _ in range(4):
            running = subprocess.Popen([*TIDEMILL, "apply", "--yes"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
            if kill:
                kill = False
                try:
                    running.wait(self._random.uniform(1.5, 6))
                except subprocess.TimeoutExpired:
                    running.kill()
                    self._killed.append("apply")
            said, _ = running.communicate(timeout=PATIENCE_SECONDS)
            assert "Traceback" not in said, said
            if running.returncode == 0:
                return
        raise AssertionError(said)

    def _settle(self) -> None:
        self.stack.wait_ready()
        last = asyncio.run(asyncio.wait_for(self._settled(), PATIENCE_SECONDS))
        time.sleep(max(last + SETTLED_MS / 1000 - time.monotonic(), 0))  # so that no event may be on its way, and order alone is left open

    async def _settled(self) -> float:
        """Return once all services follow, and everything is where it belongs. Last events, which are routed when all before them are, show it.
        Returns when these were published (monotonic)."""
        definitions = await read_definitions(self._kafka, self.name)
        await wait_followed(self.stack.urls, definitions.number, print, all_known=True)
        ends = await self._publisher.publish_last(self.made.stream[-1])
        published = time.monotonic()
        await _until(self._routed, ends)
        store = OfflineStore(self.home / "offline")
        await _until(partial(self._archived, store), ends)
        while self._predicted and len(store.predictions(["id"])) < self._predicted:
            await asyncio.sleep(0.2)
        project = in_force(definitions, load_project(self.home / "project")).project
        async with redis_client(self.stack.redis_url, timeout_seconds=10) as link:
            for view in project.views.values():
                log = await offset_ranges(self._kafka, view_topic(self.name, view.log))
                await wait_folded(self.name, view, {target.partition: held.end for target, held in log.items()}, store, link, _untold)
        return published

    async def _routed(self) -> Mapping[TopicPartition, int]:
        return await committed(self._kafka, ingestion_group(self.name))

    async def _archived(self, store: OfflineStore) -> Mapping[TopicPartition, int]:
        archive = store.find(event_folder("told"))
        targets = await offset_ranges(self._kafka, self._topic)
        return {} if archive is None else {target: archive.counter(counter_name(*target)) for target in targets}

    def _verify(self) -> Verified:
        code, said = self._command("verify", "--sample", "60")
        assert code == 0, said
        rows = [[cell.strip().replace(",", "") for cell in line.split("│")[2:6]] for line in said.splitlines() if line.startswith("│")]
        values, _, undecided, withheld = (sum(map(int, column)) for column in zip(*rows, strict=True)) if rows else (0, 0, 0, 0)
        return Verified(values, undecided, withheld, len(self.made.changes), self._predicted, self._killed)


async def _until(positions: Callable[[], Awaitable[Mapping[TopicPartition, int]]], ends: Mapping[TopicPartition, int]) -> None:
    """Return once all positions are at their ends."""
    while True:
        found = await positions()
        if all(found.get(target, 0) >= end for target, end in ends.items()):
            return
        await asyncio.sleep(0.2)


def _untold(*_: int) -> None:
    """Tells nobody."""


def live(seed: int, home: Path, external: External, *, modelled: bool) -> Verified:
    """Run the project of a seed. An error names it."""
    made = drawn(seed)
    try:
        return Live(made, seed, home, external, modelled=modelled).run()
    except (AssertionError, TidemillError, TimeoutError) as error:
        error.add_note(f"seed {seed}, data in {home}: {made!r}")
        raise
