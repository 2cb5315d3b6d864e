"""Damage that must not be passed over: each ends in a refusal that names cause and mend, or is found by the audit; and the mend works."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.ask import get as ask
from tests.faults.injections import refusals
from tests.faults.injections.ground import Ground, ground
from tests.faults.injections.injection import until
from tests.features.rig import PROJECT, Rig
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations import FeatureView
from tidemill.errors import OfflineUnavailable, UnknownTable
from tidemill.local.services import choose
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import fence_key, state_key
from tidemill.proof.audit import audit
from tidemill.redis.link import RedisLink
from tidemill.streams.topics import topic_specs, view_topic

pytestmark = pytest.mark.integration


@dataclass
class System:
    """Feature computation and the offline writer with both servers, and events for two views."""

    ground: Ground
    rig: Rig

    def view(self, name: str) -> FeatureView:
        """A view of the project."""
        return self.rig.project.views[name]

    def topic(self, name: str) -> str:
        """The topic of a view."""
        return view_topic(self.rig.name, self.view(name).log)

    def fed(self, events: int) -> None:
        """Publish so many events, and return when feature computation and the offline store have them."""
        self.rig.produce(events)
        self.rig.wait_folded()
        until(self.written, "all is in the offline store")

    def written(self) -> bool:
        """Whether the offline store has all of the view topics."""
        store, ends = OfflineStore(self.ground.stack.offline), asyncio.run(self.rig._ends())
        try:
            positions = {view.log: store.snapshot(f"views/{view.log}").positions for view in self.rig.project.views.values()}
        except UnknownTable:  # it was moved away
            return False
        return all(positions[tp.topic.removeprefix(f"{self.rig.name}.view.")][tp.partition] >= end for tp, end in ends.items())

    def ready(self, service: str) -> tuple[int, str]:
        """What a service says about its readiness."""
        try:
            answer = ask(f"{self.ground.stack.urls[service]}/health/ready")
        except httpx.HTTPError as error:
            return 0, str(error)
        return answer.status_code, answer.text

    def refused(self, service: str, *words: str) -> None:
        """Return when a service is not ready for a reason with these words."""
        try:
            until(lambda: self._says(service, words), f"{service} says {words}")
        except TimeoutError as error:
            raise AssertionError(f"{error}, but {self.ready(service)}") from None

    def _says(self, service: str, words: tuple[str, ...]) -> bool:
        status, text = self.ready(service)
        return status == httpx.codes.SERVICE_UNAVAILABLE and all(word in text for word in words)

    def begin_again(self, view: str, partitions: int) -> None:
        """The way out that the refusals name: without its fence a partition is rebuilt from what the topic holds."""
        for partition in range(partitions):
            self.rig.store.delete(fence_key(self.rig.name, self.view(view).log, partition))

    def rebuilt(self, view: str) -> None:
        """The other way out: its values are made anew from the offline store."""
        command = [sys.executable, "-c", "from tidemill.cli import main; main()", "rebuild", view]
        environment = {**os.environ, **self.ground.stack.environment, "TIDEMILL_HOME": str(self.ground.home)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def moved_away(self, table: str) -> None:
        """The offline store's way out: its table is written again from Kafka."""
        with self.halted("offline"):
            shutil.move(f"{self.ground.stack.offline}/{table}", f"{self.ground.home}/away-{random.random()}")

    def start_over(self, view: str) -> None:
        """Both ways out together, for a topic that is not the one that was read."""
        declared = self.view(view)
        self.begin_again(view, declared.partitions)
        self.moved_away(view_folder(declared.log))
        self.ground.stack.wait_ready()

    def halted(self, service: str) -> _Halted:
        """A service is down for as long as the context lasts."""
        return _Halted(self.ground, service)

    def audited(self) -> list[object]:
        """What the audit finds wrong."""

        async def run() -> list[object]:
            async with RedisLink(self.ground.redis_url, timeout_seconds=10) as link:
                report = await audit(self.rig.project, OfflineStore(self.ground.stack.offline), link, wait_seconds=10)
            return list(report.examples)

        return asyncio.run(run())


class _Halted:
    def __init__(self, rig: Ground, service: str) -> None:
        self._stack, self._service = rig.stack, service

    def __enter__(self) -> None:
        self._stack.halt(self._service)

    def __exit__(self, *_: object) -> None:
        self._stack.supervisor.start(self._service)  # it need not become ready


class Shared:
    """One system for all tests: each leaves it whole, which is what the mends are for. One that a failed test leaves is replaced."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder, self._running = folder, ExitStack()
        self._system: System | None = None

    def whole(self) -> System:
        """A system that is ready, with 2,000 new events in it, everywhere."""
        if self._system is None:
            self._system = self._running.enter_context(started(self._folder()))
        self._system.ground.stack.wait_ready()
        self._system.fed(2_000)
        return self._system

    def end(self) -> None:
        """Stop it."""
        self._system = None
        self._running.close()


@contextmanager
def started(folder: Path) -> Iterator[System]:
    """Start a system with its data in a folder."""
    project = folder / "project"
    project.mkdir()
    (project / "project.py").write_text(PROJECT.format(name="refused", dedupe=8))
    with ground(folder / "home", project, services=choose(["features", "offline"])) as made:
        rig = Rig("refused", project, made.stack.kafka, made.redis_url)
        yield System(made, rig)
        rig.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """Return what has the system; it is started when a test first wants it."""
    made = Shared(lambda: tmp_path_factory.mktemp("refusals"))
    yield made
    made.end()


@pytest.fixture
def system(shared: Shared, request: pytest.FixtureRequest) -> Iterator[System]:
    """Return a whole system; what a failed test did to it no other test sees."""
    failed = request.session.testsfailed
    try:
        yield shared.whole()
    except BaseException:
        shared.end()
        raise
    if request.session.testsfailed > failed:
        shared.end()


def test_topic_made_anew(system: System) -> None:
    """A topic that was deleted and created anew is not folded on top of what the old one gave; without fence and table it is begun."""
    topic = system.topic("by_shop")
    with system.halted("features"), system.halted("offline"):
        refusals.recreate_topic(system.rig.settings, topic, topic_specs(system.rig.project)[topic])
    system.refused("features", "by_shop", "the store has applied everything below", "created anew")
    system.refused("offline", topic, "was read up to offset", "made anew")
    system.start_over("by_shop")
    system.fed(500)
    system.rig.check()
    assert system.audited() == []


def test_topic_made_anew_and_filled_beyond_the_fence(system: System) -> None:
    """With more records than before the end does not give it away, but the last record applied does."""
    topic = system.topic("by_shop")
    with system.halted("features"), system.halted("offline"):
        refusals.recreate_topic(system.rig.settings, topic, topic_specs(system.rig.project)[topic])
        system.rig.produce(9_000)
    system.refused("features", "by_shop", "is not the one that was applied")
    system.refused("offline", topic, "is not the one that was read then")
    system.start_over("by_shop")
    system.fed(500)
    system.rig.check()


def test_tail_of_the_log_lost(system: System) -> None:
    """A broker that comes back without its newest records is noticed before anything is written over them."""
    lost = refusals.lose_log_tail(system.ground, system.topic("by_card"), 2, share=0.3)
    assert lost > 1000
    system.refused("features", "by_card", "partition 2", "the topic ends at offset", "truncated")
    system.refused("offline", f"{system.topic('by_card')}[2]", "Kafka ends at")
    system.start_over("by_card")
    system.fed(500)
    system.rig.check()


def test_partitions_raised(system: System) -> None:
    """A topic with more partitions than declared is refused by name: where an entity lives depends on the count."""
    topic = system.topic("by_card")
    refusals.raise_partitions(system.rig.settings, topic, 6)
    with system.halted("features"):
        pass
    system.refused("features", topic, "has 6 partitions, 4 are declared")
    refusals.recreate_topic(system.rig.settings, topic, topic_specs(system.rig.project)[topic])
    system.start_over("by_card")


def test_a_flipped_bit_in_the_store(system: System) -> None:
    """A stored value with one bit turned over is told, and neither served nor folded further; begun again, it is right."""
    view = system.view("by_card")
    entity = b"card-7"
    key = next(
        key for p in range(4) if system.rig.store.exists(key := state_key(system.rig.name, view.log, p, entity))
    )  # fmt: skip
    value = system.rig.store.get(key)
    with system.halted("features"):
        refusals.flip_bit(system.ground, random.Random(3), key)
    assert system.rig.store.get(key) != value
    assert any("card-7" in str(example) for example in system.audited())
    with system.halted("features"):
        system.rig.produce(2_000)
    system.refused("features", "by_card", "card-7", "tidemill rebuild by_card")
    system.rebuilt("by_card")
    system.ground.stack.wait_ready()
    system.rig.wait_folded()
    system.rig.check()


@pytest.mark.parametrize("how", ["deleted", "altered"])
def test_an_entity_changed_by_hand(system: System, how: str) -> None:
    """A value that is gone, or sound but another entity's, is found by the audit, which names the entity."""
    view = system.view("by_shop")
    prefix = state_key(system.rig.name, view.log, 1, b"")
    key, other, *_ = sorted(system.rig.store.scan_iter(match=prefix + b"*", count=1000))
    if how == "deleted":
        system.rig.store.delete(key)
    else:
        refusals.alter_entity(system.rig.store, key, other)
    examples = system.audited()
    assert any(key.removeprefix(prefix).decode() in str(example) for example in examples), examples
    system.begin_again("by_shop", 2)
    until(lambda: system.audited() == [], "the audit finds nothing")


def test_data_file_lost(system: System) -> None:
    """A data file that is gone under intact commits is told to whoever reads the table; moved away, the table is written again."""
    table = f"views/{system.view('by_shop').log}"
    refusals.lose_data_file(Path(system.ground.stack.offline) / table)
    with pytest.raises(OfflineUnavailable, match="its writer makes it again from Kafka"):
        OfflineStore(system.ground.stack.offline).scan(table)
    system.moved_away(table)
    system.fed(200)


# The last one: checks and mends of the others want a topic that begins with its first record.
def test_log_begins_past_the_fence(system: System) -> None:
    """Records that expired before they were applied are missed, not skipped; the offline store has them, and gives them back."""
    topic = system.topic("by_shop")
    with system.halted("features"):
        system.rig.produce(1_000)
        until(system.written, "all is in the offline store")
        for tp, end in asyncio.run(system.rig._ends()).items():
            if tp.topic == topic:
                refusals.expire_records(system.rig.settings, topic, tp.partition, end - 5)
    system.refused("features", "by_shop", "the topic begins at offset", "the store needs the records from", "tidemill rebuild by_shop")
    system.rebuilt("by_shop")
    system.ground.stack.wait_ready()
    assert system.audited() == []
