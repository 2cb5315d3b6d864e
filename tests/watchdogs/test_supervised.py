"""Every service under the real supervisor: what hangs ends with its stacks in the log, exit code 70, and is back; what waits says for what, and lives."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.ask import get as ask

from tidemill.local.services import SERVICES
from tidemill.local.stack import Stack

pytestmark = pytest.mark.integration
PATIENCE_SECONDS = 20  # more than the longest single wait for Kafka, which is 15 s
NAMES = [service.name for service in SERVICES]
FREEZING = ["features", "offline", "predlog"]  # those whose ordinary work waits for a thread
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Return a whole running system of little patience whose services hang when they are told to."""
    home = tmp_path_factory.mktemp("watchdogs")
    (home / "orders").mkdir()
    environment = {
        "HANG_ORDERS": str(home / "orders"),
        "TIDEMILL_PATIENCE_SECONDS": str(PATIENCE_SECONDS),
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("shared", "services", "")),
    }
    services = [dataclasses.replace(service, module="tests.watchdogs.hanging") for service in SERVICES]
    project = ROOT / "tests" / "live_project"
    with Stack(home / "home", str(project), services, environment=environment, timeout_seconds=300) as stack:
        yield stack


def until(holds: Callable[[], bool], explain: Callable[[], Any], limit_seconds: float = 300) -> None:
    """Wait for something to hold; fail with the explanation when it takes too long for any machine."""
    end = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < end, explain()
        time.sleep(0.2)


def pids(stack: Stack, names: Sequence[str] = NAMES) -> dict[str, int]:
    """The process of each service."""
    return {name: stack.pid(name) for name in names}


def failing(stack: Stack, name: str) -> dict[str, dict[str, Any]]:
    """What a service is not ready for."""
    checks = ask(f"{stack.urls[name]}/health/ready").json()["checks"]
    return {check: found for check, found in checks.items() if not found["ok"]}


def ends(stack: Stack, name: str, reason: str) -> int:
    """How often a service ended for a reason, as its metric says."""
    text = ask(f"{stack.urls[name]}/metrics").text
    found = re.search(rf'^tidemill_process_exits_total{{reason="{reason}"}} (\d+)', text, re.MULTILINE)
    assert found
    return int(found[1])


@contextmanager
def armed(stack: Stack) -> Iterator[None]:
    """The watchdogs count."""
    file = Path(stack.environment["HANG_ORDERS"]) / "armed"
    file.touch()
    try:
        yield
    finally:
        file.unlink()


def hang(stack: Stack, kind: str, names: Sequence[str]) -> dict[str, str]:
    """Let services hang at once; return what each wrote to its log since, when all of them are back."""
    before = pids(stack, names)
    sizes = {name: stack.log(name).stat().st_size for name in names}
    orders = Path(stack.environment["HANG_ORDERS"])
    for name in names:
        (orders / f"{name}.{kind}").touch()
        if kind == "thread" and name != "features":
            stack.kill(name)  # its first thread comes at the start
            before[name] = -1
    until(lambda: not any(orders.iterdir()), lambda: f"not obeyed: {list(orders.iterdir())}")

    def said(name: str) -> str:
        return stack.log(name).read_bytes()[sizes[name] :].decode(errors="replace")

    log = stack.log("supervisor")
    with armed(stack):
        until(lambda: all("no progress" in said(name) for name in names), lambda: {name: said(name)[-2000:] for name in names})
        until(lambda: all(f"exited: {name} (exit status 70" in log.read_text() for name in names), log.read_text)
    stack.wait_ready(*names)
    assert all(pid not in (0, before[name]) for name, pid in pids(stack, names).items())
    return {name: said(name) for name in names}


@pytest.fixture(scope="module")
def blocked(stack: Stack) -> dict[str, str]:
    """Return the logs of services whose loops were blocked."""
    return hang(stack, "loop", NAMES)


@pytest.fixture(scope="module")
def frozen(stack: Stack) -> dict[str, str]:
    """Return the logs of services one of whose threads was frozen."""
    return hang(stack, "thread", FREEZING)


@pytest.mark.parametrize("name", NAMES)
def test_a_blocked_loop_ends_the_process(stack: Stack, blocked: dict[str, str], name: str) -> None:
    """The log names the loop and shows where it hangs; the count of such ends outlives the process."""
    assert re.search(r'"silent_seconds":\{[^}]*"event loop":2\d', blocked[name])
    assert "in blocked_loop" in blocked[name]
    assert ends(stack, name, "stuck") >= 1


@pytest.mark.parametrize("name", FREEZING)
def test_a_frozen_thread_ends_the_process(stack: Stack, frozen: dict[str, str], name: str) -> None:
    """The worker that waits for it is named, the thread shown; the loop itself was well."""
    assert re.search(r'"silent_seconds":\{[^}]*":2\d[,}]', frozen[name])
    assert re.search(r'"silent_seconds":\{[^}]*"event loop":\d[,}]', frozen[name])
    assert "in frozen_thread" in frozen[name]
    assert ends(stack, name, "stuck") >= 1
    assert (ends(stack, name, "killed") >= 1) == (name != "features")


def test_stalled_servers_are_waited_for(stack: Stack) -> None:
    """Kafka and Redis take connections and say nothing for longer than the patience: each service names what it waits for, and since when.

    None ends, and all are ready again by themselves.
    """
    before, sizes = pids(stack), {name: stack.log(name).stat().st_size for name in NAMES}
    stopped = [stack.pid("valkey"), stack.pid("kafka")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with armed(stack):
            until(lambda: all(failing(stack, name) for name in NAMES), lambda: [name for name in NAMES if not failing(stack, name)])
            time.sleep(max(0.0, began + PATIENCE_SECONDS + 8 - time.monotonic()))
        for service in SERVICES:
            waiting = {
                check: found for check, found in failing(stack, service.name).items() if check != "progress"
            }  # a turn may take a while
            assert all(found["reason"] for found in waiting.values())
            assert max(found["for_seconds"] for found in waiting.values()) > 3
            assert "redis" in waiting or "valkey" not in service.needs
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    stack.wait_ready()
    ended = [name for name, pid in pids(stack).items() if pid != before[name]]
    assert not ended, [stack.log(name).read_bytes()[sizes[name] :].decode(errors="replace") for name in ended]
