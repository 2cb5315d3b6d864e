"""Workers and HTTP answers live and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import SettingsError, WorkerEnded
from tidemill.local.processes import free_port
from tidemill.runtime.asgi import OpsApp, Receive, Scope, Send, respond
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Pulse, run_together, run_workers
from tidemill.runtime.settings import HttpSettings

HTTP = HttpSettings(host="127.0.0.1", port=0)
ROOT = Path(__file__).parents[2]


async def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a service that does this work."""
    board = HealthBoard()
    await run_workers(OpsApp(board), HTTP, work(), [Pulse()], board)  # type: ignore[arg-type]


async def test_sigterm_cancels_the_work() -> None:
    """On SIGTERM the work is cancelled, may clean up, and nothing is raised."""
    steps = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            steps.append("cleaned up")

    await run(work)
    assert steps == ["cleaned up"]


async def test_requests_in_progress_are_answered_before_the_work_ends() -> None:
    """A request that came before SIGTERM still has the workers it needs."""
    working = False

    async def work() -> None:
        nonlocal working
        working = True
        try:
            await asyncio.Event().wait()
        finally:
            working = False

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.5)
        await respond(send, 200 if working else 500, b"{}")

    port = free_port(set())
    serving = asyncio.create_task(run_workers(OpsOr(slow), HttpSettings(host="127.0.0.1", port=port), work(), [], HealthBoard()))
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=8), timeout=PATIENCE_SECONDS, trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/")
    await serving
    assert answer.status_code == 200
    assert not working


class OpsOr:
    """An application that leaves the lifespan to itself."""

    def __init__(self, handle: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        await self._handle(scope, receive, send)


async def test_what_the_work_raises_ends_the_service() -> None:
    """An error of the work is the service's error."""

    async def work() -> None:
        raise SettingsError("no project")

    with pytest.raises(SettingsError, match="no project"):
        await run(work)


async def returns() -> None:
    """A worker that ends."""


async def is_cancelled() -> None:
    """A worker that a library cancels from within."""
    raise asyncio.CancelledError


async def never_ends() -> None:
    """A worker as it should be."""
    await asyncio.Event().wait()


@pytest.mark.parametrize("work", [returns, is_cancelled])
async def test_work_that_ends_by_itself_is_an_error(work: Callable[[], Awaitable[None]]) -> None:
    """Whether it returns or is cancelled from within: a service without its work must not go on answering."""
    with pytest.raises(WorkerEnded, match="ended by itself"):
        await run(work)


@pytest.mark.parametrize("work", [returns, is_cancelled])
async def test_one_of_several_that_ends_ends_all(work: Callable[[], Awaitable[None]]) -> None:
    """The others are cancelled and done with before the error names the one that ended."""
    steps = []

    async def other() -> None:
        try:
            await never_ends()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    with pytest.raises(WorkerEnded, match=work.__name__):
        await run_together(other(), work(), other())  # type: ignore[arg-type]
    assert steps == ["cleaned up"] * 2


async def test_an_error_of_one_of_several_is_raised() -> None:
    """As itself, not in a group."""

    async def fails() -> None:
        raise SettingsError("no project")

    with pytest.raises(SettingsError, match="no project"):
        await run_together(never_ends(), fails(), never_ends())


async def test_several_are_cancelled_together() -> None:
    """Who cancels the whole cancels each."""
    task = asyncio.create_task(run_together(never_ends(), never_ends()))
    await asyncio.sleep(0.01)
    before = len(asyncio.all_tasks())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == before - 3


PROGRAM = """
    import asyncio, sys
    from tidemill.runtime.entry import service_main
    from tidemill.runtime.health import HealthBoard; from tidemill.runtime.asgi import OpsApp
    from tidemill.runtime.settings import HttpSettings
    from tidemill.runtime.service import Pulse, run_workers

    async def stuck_here():
        await asyncio.Event().wait()

    board = HealthBoard()
    http = HttpSettings(host="127.0.0.1", port=0)
    sys.exit(service_main("test", lambda: asyncio.run(run_workers(OpsApp(board), http, stuck_here(), [{pulses}], board))))
"""


def start(pulses: str) -> subprocess.Popen[bytes]:
    """A service as a process of its own, of little patience."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "shared"), "TIDEMILL_PATIENCE_SECONDS": "2"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM.format(pulses=pulses))]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_silent_worker_ends_the_process() -> None:
    """A worker that gives no sign of life ends the process with exit code 70, its name, and its stack on stderr."""
    process = start('Pulse("fetch")')
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 70
    assert b'"fetch":3' in errors
    assert b"stuck_here" in errors


@pytest.mark.integration
def test_a_service_of_http_alone_lives_until_it_is_told_to_stop() -> None:
    """Without workers to watch, the loop's own sign of life is enough; SIGTERM ends the process in good order."""
    process = start("")
    assert process.stderr is not None
    assert any(b'"message":"listening"' in line for line in process.stderr), "it ended before it listened"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(5)  # it shall not end
    process.terminate()
    process.communicate(timeout=180)
    assert process.returncode == 0
