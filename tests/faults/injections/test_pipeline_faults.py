"""Faults of every service in a running system, several at once: it goes on, its stores agree, and its logs hold everything once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.faults.injections import clocks, links, models, offline, workers
from tests.faults.injections.flow import MODEL, Flow, deploy
from tests.faults.injections.ground import Ground, ground
from tests.faults.injections.injection import Injection, until

from tidemill.local.services import choose

pytestmark = pytest.mark.integration
PROJECT = Path(__file__).parents[2] / "demo_project"
ROUNDS: dict[str, Sequence[Injection]] = {
    "killed after a write": [
        workers.killed_at("ingestion", "after_send"),
        workers.killed_at("offline", "after_write"),
        workers.killed_at("predlog", "after_write", patience_seconds=30),
        workers.killed_at("inference", "after_send"),
        workers.killed_at("features", "after_apply"),
    ],
    "killed in the middle": [
        workers.killed_within("ingestion", "send", longest_seconds=0.005),
        workers.killed_within("offline", "write"),
        workers.killed_within("predlog", "write", patience_seconds=30),
        workers.killed_within("inference", "send", longest_seconds=0.005),
        workers.raising("features"),
    ],
    "errors, late answers, two writers": [
        workers.raising("ingestion", "before_send"),
        models.LATE,
        offline.DOUBLED,
        workers.twins((2.0, 4.0)),
    ],
    "compaction beside the writer, workers come and go": [
        offline.MAINTAINED,
        workers.killed_at("ingestion", "before_commit"),
        workers.join_storm((2.0, 3.0)),
    ],
    "a torn commit, wrong clocks, a blocked loop": [offline.TORN, clocks.AHEAD, workers.blocked("features", "before_apply", 7.0)],
    "replies lost by Kafka, a slow worker": [links.replies_lost("kafka"), workers.slowed("features", "before_apply", 0.02)],
}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """All services but drift, with a model."""
    home = tmp_path_factory.mktemp("pipeline")
    services = choose(["ingestion", "features", "offline", "inference", "predlog"])
    with ground(home, PROJECT, services=services) as made:
        deploy(made)
        yield made


@pytest.fixture(scope="module")
def flow(rig: Ground) -> Iterator[Flow]:
    """Events and questions all the while."""
    with Flow(rig) as made:
        yield made


@pytest.mark.parametrize("name", ROUNDS)
def test_nothing_lost_and_nothing_twice(rig: Ground, flow: Flow, name: str) -> None:
    """Faults of different processes at once: afterwards events still arrive and predictions are still answered."""
    faults = ROUNDS[name]
    with ThreadPoolExecutor(len(faults)) as threads:
        said = list(threads.map(lambda fault: fault.strike(rig, random.Random(fault.name)), faults))
    assert all(said)
    rig.stack.wait_ready()
    published, answered = flow.published, len(flow.answered)
    until(lambda: flow.published > published + 20 and len(flow.answered) > answered, "it goes on")


def test_a_damaged_model_does_not_serve(rig: Ground, flow: Flow) -> None:
    """The version before answers until the new one is whole; then the new one does."""
    url = f"{rig.stack.urls['inference']}/v2/models/{MODEL}"
    before = httpx.get(url, trust_env=False).json()["versions"]
    said = models.DAMAGED.strike(rig, random.Random(3))
    version = said.partition("version ")[2].partition(" ")[0]
    until(lambda: httpx.get(url, trust_env=False).json()["versions"] == [version], "the new version serves")
    assert before != [version]
    assert "deployment refused" in rig.stack.log("inference").read_text()
    assert flow.answered


def test_everything_is_in_its_place(rig: Ground, flow: Flow) -> None:
    """In the end every event lies in its view, every answer in the log as it was given, no position is missing or there twice, and Redis agrees."""
    flow.__exit__(None, None, None)
    rig.stack.wait_ready()
    flow.check()
