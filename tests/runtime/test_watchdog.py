"""The dead man's switch: alone with a hand-turned clock, and in processes of their own, since it ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frozen import freeze
from tests.patience import PATIENCE_SECONDS

from tidemill.runtime.watchdog import Pulse

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, time
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import configure
from tidemill.runtime.settings import WatchdogSettings
from tidemill.runtime.watchdog import Pulse, Watchdog

configure("test")
pulse = Pulse("fetching")
board = HealthBoard()

async def waits_for_ever():
    await asyncio.Event().wait()

async def main():
    async with Watchdog([pulse], board, WatchdogSettings(patience_seconds={patience})):
        task = asyncio.create_task(waits_for_ever())
        print("started", flush=True)
        {body}
    {after}

asyncio.run(main())
"""


@given(st.lists(st.booleans(), max_size=50))
def test_a_pulse_counts_seconds_since_its_last_beat(beats: list[bool]) -> None:
    """Beats within one second count once; a beat makes the next second the first."""
    pulse = Pulse()
    silent = 0
    for beat in beats:
        if beat:
            pulse.beat()
            pulse.beat()
        silent = 0 if beat else silent + 1
        pulse.tick()
        assert pulse.silent_seconds == silent


def start(body: str, after: str = "pass", patience: int = 2, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Run the program with this end."""
    command = [sys.executable, "-c", PROGRAM.format(body=body, after=after, patience=patience)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/shared"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "silent"),
    [("await task", "fetching"), ("time.sleep(60)", "event loop"), ("await asyncio.to_thread(time.sleep, 60)", "fetching")],
)
def test_silence_ends_the_process(body: str, silent: str) -> None:
    """Without a beat the process ends with 70 and shows who was silent, and where tasks and threads are, also when the loop itself is blocked."""
    process = start(body)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 70
    assert "no progress" in errors
    assert f'"{silent}":3' in errors
    assert "waits_for_ever" in errors


FILL_THE_PIPE = """
import os
from tidemill.runtime import watchdog
watchdog.DUMP_SECONDS = 1
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"x")
except BlockingIOError:
    os.set_blocking(2, True)
"""


@pytest.mark.integration
def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end() -> None:
    """The stacks cannot be written, so the process ends without them."""
    process = start(f"exec({FILL_THE_PIPE!r}); await task")
    assert process.wait(PATIENCE_SECONDS) == 70
    process.communicate()


@pytest.mark.integration
def test_beats_keep_it_alive() -> None:
    """With a beat in time it lives on, and after its end nothing is needed."""
    process = start("for _ in range(16): pulse.beat(); await asyncio.sleep(0.25)", "await asyncio.sleep(4)")
    process.communicate(timeout=180)
    assert process.returncode == 0


SAID = """
import json
async def said(silent):
    while ((reason := json.loads(board.ready_answer()[1])["checks"].get("progress", {}).get("reason")) is not None) != silent:
        await asyncio.sleep(0.1)
    print(reason, flush=True)
"""


@pytest.mark.integration
def test_silence_is_told_before_the_end() -> None:
    """After a quarter of the patience the board names who is silent, and for how long; a beat makes it well again."""
    process = start(f"exec({SAID!r}, globals()); await said(True); pulse.beat(); await said(False)", patience=16)
    out, _ = process.communicate(timeout=180)
    first, second = out.splitlines()
    assert first.startswith("no sign of life of the fetching for ")
    assert first.endswith("the process ends after 16 s")
    assert second == "None"


@pytest.mark.integration
def test_a_stopped_process_is_not_stuck() -> None:
    """A process that was stopped for longer than its patience and continued goes on."""
    process = start("for _ in range(16): pulse.beat(); await asyncio.sleep(0.25)")
    freeze(process.pid)
    time.sleep(4)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=180)
    assert process.returncode == 0
