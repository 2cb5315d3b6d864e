"""Real servers for the tests, in temporary folders: one Kafka for a whole test run, one Valkey for each worker."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
from tests.shared import Shared

from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.local.stack import Stack
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

pytest_plugins = ["tests.times"]
SHARED = pytest.StashKey[Shared]()

# Few examples while one works, many where time is no matter: HYPOTHESIS_PROFILE=ci. No deadline: tests never assert times.
_CALM = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("dev", max_examples=30, deadline=None, suppress_health_check=_CALM)
hypothesis.settings.register_profile("ci", max_examples=150, deadline=None, suppress_health_check=_CALM)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# Dealt out before all others, the longest first: a long file that begins last is waited for alone.
LONGEST = (
    "live", "servers", "operations/test_rebuild.py", "operations/repartition/test_journey.py", "ingestion/test_deployments.py",
    "watchdogs/test_supervised.py", "features/test_deployments.py", "local/test_cli_stack.py", "faults/test_refusals.py",
    "ingestion/test_service.py", "local/test_stack.py", "serving/test_fed_later.py",
)  # fmt: skip
COSTLY = ("live", "servers")
"""Fixtures that a worker starts but once: all files whose tests want one go to the same worker."""


@pytest.hookimpl(tryfirst=True)  # xdist then puts the group behind the name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first; tests of a file stay together, and so do files that want the same costly fixture."""
    folder = Path(__file__).parent
    wanted: dict[Path, str] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        wanted |= {item.path: name for name in COSTLY if name in fixtures}

    def group(item: pytest.Item) -> str:
        return wanted.get(item.path) or (item.path.relative_to(folder).as_posix() if item.path.is_relative_to(folder) else item.path.name)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: LONGEST.index(group(item)) if group(item) in LONGEST else len(LONGEST))


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
