"""Real servers for the tests, in temporary folders: one Kafka for a whole test run, one Valkey for each worker."""

import asyncio
import gc
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from tests.shared import Shared
from xdist.scheduler import LoadScopeScheduling

from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.local.stack import Stack
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

pytest_plugins = ["tests.marks", "tests.times"]
SHARED = pytest.StashKey[Shared]()

# Of every library that computes on threads of its own: workers share the processors, and threads that wait for each other there spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Of every Kafka that a test starts: to compile it whole would cost as much again as its start, and few live long.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

# What a shell runs in the background ignores Ctrl-C, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each worker chooses ports of its own: between the choice and the server, another worker might take the same.
if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _first = 15_000 + 2_000 * (int(_worker.removeprefix("gw")) % 8)
    os.environ["TIDEMILL_PORTS"] = f"{_first}-{_first + 1_999}"

# Few examples while one works, many where time is no matter: HYPOTHESIS_PROFILE=ci. No deadline: tests never assert times.
_CALM = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("dev", max_examples=30, deadline=None, suppress_health_check=_CALM)
hypothesis.settings.register_profile("ci", max_examples=150, deadline=None, suppress_health_check=_CALM)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# Dealt out before all others, the longest first: a long file that begins last is waited for alone.
LONGEST = (
    "servers", "live", "ingestion/test_deployments.py", "operations/test_rebuild.py", "retraining/test_online.py", "cli/test_live_catalogue.py",
    "operations/repartition/test_journey.py", "watchdogs/test_supervised.py", "local/test_cli_stack.py", "operations/fill/test_prune.py",
    "local/test_stack.py", "faults/test_refusals.py", "ingestion/test_following.py", "features/test_deployments.py",
    "ingestion/test_service.py", "operations/fill/test_fill.py", "simulation/test_mutations.py", "ingestion/test_consumer.py",
    "audit/test_verifying.py", "predlog/test_predlog.py", "retraining/test_service.py", "operations/repartition/test_job.py",
    "operations/fill/test_killed.py", "archive/test_writer.py", "kafka/test_client.py", "training/test_train.py",
    "inference/test_roles.py", "cluster/test_changes.py", "inference/test_first_answers.py", "serving/test_fed_later.py", "features/test_following.py",
    "cli/test_live_classes.py", "runtime/test_watchdog.py", "features/test_crashes.py",
    "faults/test_faults.py", "readme/test_commands.py", "cli/test_story.py", "readme/test_start.py", "verify/test_live.py",
    "simulation/test_histories.py",
)  # fmt: skip
TOGETHER = {
    "cli/test_live.py": "live", "cli/test_live_dead_letters.py": "live", "operations/test_playback.py": "live",
    "audit/test_service.py": "servers", "drift/test_service.py": "servers", "features/test_servers.py": "servers",
    "inference/test_failures.py": "servers",
}  # fmt: skip
"""Files whose tests want a costly fixture that a worker starts but once: all files of one fixture go to one worker."""


def _place(path: str) -> str:
    """What goes to one worker: a file below this folder, or the fixture that several files share."""
    return TOGETHER.get(path, path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first. Raises UsageError for a file that wants a costly fixture and is not named in TOGETHER."""
    folder = Path(__file__).parent
    places = {item.path: _place(os.path.relpath(item.path, folder)) for item in items}
    for item in items:
        apart = {*TOGETHER.values()}.intersection(getattr(item, "fixturenames", ())) - {places[item.path]}
        if apart:
            raise pytest.UsageError(f"{item.path} wants {', '.join(apart)}: name it in TOGETHER of tests/conftest.py")
    items.sort(key=lambda item: LONGEST.index(places[item.path]) if places[item.path] in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """All modules are imported: they stay, so no later collection of garbage has to look at them. Without this, it takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class Places(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Deals out what goes to one worker as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        return _place(nodeid.partition("::")[0].removeprefix("tests/"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Where files are dealt out whole, some go together."""
    return Places(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """Return the bootstrap servers of a real broker, one for all workers; share it by using a `topic_prefix`."""
    folder = tmp_path_factory.getbasetemp()
    shared = Shared(folder.parent / "kafka" if "PYTEST_XDIST_WORKER" in os.environ else folder / "kafka")
    request.config.stash[SHARED] = shared
    return shared.join()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave the broker: here and not in a fixture, since waiting for the other workers is no part of a test."""
    if SHARED in session.config.stash:
        session.config.stash[SHARED].leave()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real Valkey; most tests want `redis_url`, which is empty."""
    with Stack(tmp_path_factory.mktemp("valkey"), services=(), servers=("valkey",), timeout_seconds=300) as stack:
        yield stack.redis_url


@pytest.fixture(scope="session")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a Kafka and a Valkey beside those of the other tests; tests want `servers`."""
    with Stack(tmp_path_factory.mktemp("mortal"), services=(), servers=("kafka", "valkey"), timeout_seconds=300) as stack:
        yield stack


@pytest.fixture
def servers(mortal: Stack) -> Iterator[Stack]:
    """Return a stack of Kafka and Valkey that a test may kill and halt; they come back with their data. Share it by using a `topic_prefix`."""
    yield mortal
    for name in ("kafka", "valkey"):
        if mortal.supervisor.processes()[name].statename == "STOPPED":
            mortal.resume(name)


@pytest.fixture
def redis_url(valkey: str) -> str:
    """Return the URL of a real Valkey that holds nothing."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    return valkey


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Return Kafka and an empty Valkey: those of `servers` where the test wants these too."""
    if "servers" not in request.fixturenames:
        return request.getfixturevalue("kafka"), request.getfixturevalue("redis_url")
    servers: Stack = request.getfixturevalue("servers")
    return servers.kafka, servers.redis_url


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return the whole running system with the project `live_project`: every server and service as a process of its own."""
    project = Path(__file__).parent / "live_project"

    def make_topics(stack: Stack) -> None:
        asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), topic_specs(load_project(project))))

    with Stack(tmp_path_factory.mktemp("live") / "home", str(project), prepare=make_topics, timeout_seconds=300) as stack:
        yield stack


@pytest.fixture
def topic_prefix() -> str:
    """Return a project name no other test uses, so that topics and consumer groups on the shared broker never meet."""
    return f"t{uuid.uuid4().hex[:12]}"
