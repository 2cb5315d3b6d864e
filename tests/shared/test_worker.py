"""Workers and HTTP answers live and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tidemill.errors import SettingsError
from tidemill.health import HealthBoard, OpsApp
from tidemill.settings import HttpSettings
from tidemill.worker import Pulse, run_workers

HTTP = HttpSettings(host="127.0.0.1", port=0)
ROOT = Path(__file__).parents[2]


async def test_sigterm_cancels_the_work() -> None:
    """On SIGTERM the work is cancelled, may clean up, and nothing is raised."""
    steps = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            steps.append("cleaned up")

    await run_workers(OpsApp(HealthBoard()), HTTP, work(), [Pulse()])
    assert steps == ["cleaned up"]


async def test_what_the_work_raises_ends_the_service() -> None:
    """An error of the work is the service's error."""

    async def work() -> None:
        raise SettingsError("no project")

    with pytest.raises(SettingsError, match="no project"):
        await run_workers(OpsApp(HealthBoard()), HTTP, work(), [])


def test_silent_worker_ends_the_process() -> None:
    """A worker that gives no sign of life ends the process with exit code 70 and its stack on stderr."""
    program = """
        import asyncio
        from tidemill import worker
        from tidemill.health import HealthBoard, OpsApp
        from tidemill.settings import HttpSettings

        worker.PATIENCE_SECONDS = 1

        async def stuck_here():
            await asyncio.Event().wait()

        asyncio.run(worker.run_workers(OpsApp(HealthBoard()), HttpSettings(host="127.0.0.1", port=0), stuck_here(), [worker.Pulse()]))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "shared")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 70
    assert b"stuck_here" in ended.stderr
