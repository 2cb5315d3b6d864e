"""The dead man's switch, each time in a process of its own, since it ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from tests.features.rig import ROOT

PROGRAM = """
import asyncio, time
from tidemill.logs import configure
from tidemill.watchdog import Watchdog

configure("test")

async def waits_for_ever():
    await asyncio.Event().wait()

async def main():
    dog = Watchdog(patience_seconds=1)
    dog.start()
    task = asyncio.create_task(waits_for_ever())
    print("started", flush=True)
    {body}

asyncio.run(main())
"""


def start(body: str) -> subprocess.Popen[str]:
    """Run the program with this end."""
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": f"{ROOT}/shared:{ROOT}/services"}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("body", ["await task", "time.sleep(60)"])
def test_silence_ends_the_process(body: str) -> None:
    """Without a beat the process ends with 70 and shows where tasks and threads are, even when the loop itself is blocked."""
    process = start(body)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 70
    assert "no progress" in errors
    assert "waits_for_ever" in errors


@pytest.mark.integration
def test_beats_keep_it_alive() -> None:
    """With a beat in time it lives on, and after `stop` it needs none."""
    process = start("for _ in range(12): dog.beat(); await asyncio.sleep(0.25)\n    dog.stop(); await asyncio.sleep(3)")
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.integration
def test_a_stopped_process_is_not_stuck() -> None:
    """A process that was stopped for longer than its patience and continued goes on."""
    process = start("for _ in range(12): dog.beat(); await asyncio.sleep(0.25)")
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=30)
    assert process.returncode == 0
