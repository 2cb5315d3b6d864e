"""Kafka and Redis that are not there yet: every service starts all the same, says what it waits for, and gets ready without a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from tests.ask import get as ask
from tests.patience import PATIENCE_SECONDS

from tidemill.local.processes import is_free
from tidemill.local.services import SERVICES, LocalService
from tidemill.local.stack import External, Stack

pytestmark = pytest.mark.integration
PROJECT = Path(__file__).parent / "fault_project"
NAMED = {"kafka": "kafka", "valkey": "redis"}  # what answers call the servers
T = TypeVar("T")


@dataclass
class Started:
    """A service that was started while its servers were away, and what it said then."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    live: int = 0
    ready: int = 0
    told: str = ""

    def get(self, path: str) -> httpx.Response | None:
        """An answer, None while nobody listens. Raises AssertionError when the process has ended."""
        assert self.process.poll() is None, f"it ended with {self.process.poll()}:\n{self.log.read_text()[-3000:]}"
        try:
            return ask(f"{self.url}{path}")
        except httpx.TransportError:
            return None

    def waits_for(self, needs: tuple[str, ...]) -> bool:
        """Whether the failing checks name every server it needs, each with a reason."""
        answer = self.get("/health/ready")
        if answer is None:
            return False
        self.ready, self.told = answer.status_code, answer.text
        checks: dict[str, dict[str, str]] = answer.json()["checks"]
        reasons = [
            f"{name}: {check['reason']}" for name, check in checks.items() if not check["ok"] and check["reason"] != "not checked yet"
        ]
        return all(any(NAMED[need] in reason.lower() for reason in reasons) for need in needs)


def until(what: str, attempt: Callable[[], T | None], started: Started) -> T:
    """The first true answer. Raises AssertionError with what the service said last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := attempt()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_SECONDS:g} s; {started.told}\n{started.log.read_text()[-3000:]}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Started]]:
    """Every service, started while neither Kafka nor Valkey was there; both are there now, empty, without any topic."""
    home = tmp_path_factory.mktemp("away")
    started: dict[str, Started] = {}
    try:
        with Stack(home, services=(), servers=("kafka", "valkey"), external=External(), timeout_seconds=PATIENCE_SECONDS) as servers:
            for name in ("kafka", "valkey"):
                servers.halt(name)
            started |= {service.name: start(service, servers, home) for service in SERVICES}
            for service in SERVICES:
                one = started[service.name]
                until(f"{service.name} names {service.needs}", lambda one=one, needs=service.needs: one.waits_for(needs), one)  # type: ignore[misc]
                live = one.get("/health/live")
                one.live = live.status_code if live is not None else 0
            for name in ("valkey", "kafka"):
                servers.resume(name)
            yield started
            for one in started.values():
                one.process.terminate()
            for one in started.values():
                one.process.wait(PATIENCE_SECONDS)
    finally:
        for one in started.values():
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()


def start(service: LocalService, servers: Stack, home: Path) -> Started:
    """A service as a process of its own, with no one to restart it."""
    port = next(port for port in range(32_000, 15_000, -7) if is_free(port))
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": servers.kafka, "REDIS_URL": servers.redis_url, "TIDEMILL_OFFLINE": str(home / "offline"),
        "TIDEMILL_PROJECT": str(PROJECT), "TIDEMILL_HOST": "127.0.0.1", "TIDEMILL_PORT": str(port),
    }  # fmt: skip
    log = home / f"{service.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", service.module], env={**os.environ, **settings}, stdout=output, stderr=output)
    made = Started(process, f"http://127.0.0.1:{port}", log)
    until(f"{service.name} listens", lambda: made.get("/health/live"), made)
    return made


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_a_service_waits_for_its_servers(service: LocalService, services: dict[str, Started]) -> None:
    """Without Kafka and Redis it is alive, not ready, and names what it lacks; with them the same process becomes ready."""
    started = services[service.name]
    assert (started.live, started.ready) == (200, 503), started.told
    assert json.loads(started.told)["status"] == "unready"

    def ready() -> bool:
        answer = started.get("/health/ready")
        started.told = answer.text if answer is not None else started.told
        return answer is not None and answer.status_code == httpx.codes.OK

    until(f"{service.name} is ready", ready, started)
    assert started.process.poll() is None
