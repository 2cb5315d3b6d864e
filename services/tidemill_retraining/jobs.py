"""Trainings and rehearsals as processes of their own, with limits of memory, niceness and time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from tidemill.runtime.logs import get_logger
from tidemill.signals import NO_MEMORY, signal_told
from tidemill.tied import PARENT
from tidemill_retraining.settings import JobSettings

log = get_logger(__name__)
T = TypeVar("T")

LINES = 30
_LINE_BYTES = 65_536
_SAME_ORDER = {"PYTHONHASHSEED": "0"}  # of sets of texts, by which sums have other last digits
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Ended(NamedTuple):
    """How a process ended. `why`: empty if it did what it should; `lines`: the last that it printed."""

    why: str
    lines: list[str]


def last_word(ended: Ended, kind: type[T], wrong: Callable[[str], T]) -> T:
    """What a process said as its last line of JSON. `wrong`: what stands for that of one that did not end well, or said something else."""
    if ended.why:
        return wrong(ended.why)
    try:
        return msgspec.json.decode(ended.lines[-1], type=kind)
    except (IndexError, msgspec.DecodeError):
        return wrong(f"it said {ended.lines[-1:]}")


def training_command(settings: JobSettings, model: str, run: int, version: str) -> list[str]:
    """What trains a model: the command of the settings, or tidemill's own."""
    if settings.command:
        return [word.format(model=model, run=run, version=version) for word in shlex.split(settings.command)]
    return [sys.executable, "-m", "tidemill_training", model, "--no-deploy", "--created", str(run)]


def rehearsal_command(offline_root: str, model: str, version: str, champion: str) -> list[str]:
    """What rehearses a version beside the champion."""
    return [sys.executable, "-m", "tidemill_retraining.rehearsal", offline_root, model, version, champion]


class Listening(NamedTuple):
    """Who hears what a process prints. `heard`: gets each line, and says whether it was meant for it; `silent_seconds`: a process that prints nothing for so long hangs, and
    is ended."""

    heard: Callable[[str], bool]
    silent_seconds: float


def learner_command(model: str, line: str) -> list[str]:
    """What learns outcomes after a version was trained."""
    return [sys.executable, "-m", "tidemill_retraining.learner", model, line]


def snapshot_command(model: str, line: str, champion: str) -> list[str]:
    """What makes a version of what was learned, and rehearses it beside the champion."""
    return [sys.executable, "-m", "tidemill_retraining.snapshot", model, line, champion]


async def run(
    command: Sequence[str],
    settings: JobSettings,
    seconds: float | None,
    listening: Listening | None = None,
) -> Ended:
    """Runs a command to its end, or to that of its time (None: there is none). It ends with this process, and when this is cancelled."""
    told = {} if settings.command else {PARENT: str(os.getpid())}  # a command of one's own may train in a child of its own
    limited = [sys.executable, "-m", "tidemill_retraining.limited", str(settings.megabytes), str(settings.nice), *command]
    process = await asyncio.create_subprocess_exec(
        *limited,
        env={**os.environ, **_SAME_ORDER, **told},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    lines = deque[str](maxlen=LINES)
    try:
        async with asyncio.timeout(seconds):
            await _listen(process, lines, listening)
            code = await process.wait()
    except _SilentError:
        return Ended(f"said nothing for {listening.silent_seconds if listening else 0:g} s, and was ended", list(lines))
    except TimeoutError:
        return Ended(f"not done after {seconds or 0:g} s, and ended", list(lines))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        await process.wait()
    return Ended(_why(code, lines), list(lines))


class _SilentError(Exception):
    """A process said nothing for too long."""


async def _listen(process: asyncio.subprocess.Process, lines: deque[str], listening: Listening | None) -> None:
    assert process.stdout is not None
    while True:
        try:
            line = await _next_line(process.stdout, listening and listening.silent_seconds)
        except ValueError:  # longer than the limit: it is dropped
            continue
        if not line:
            return
        text = _COLOUR.sub("", line.decode(errors="replace")).strip()
        if text and not (listening and listening.heard(text)):
            lines.append(text)
            log.info("job", said=text)


async def _next_line(out: asyncio.StreamReader, silent_seconds: float | None) -> bytes:
    if silent_seconds is None:
        return await out.readline()
    try:
        async with asyncio.timeout(silent_seconds):
            return await out.readline()
    except TimeoutError:
        raise _SilentError from None


def _why(code: int, lines: Sequence[str]) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"ended by {signal_told(-code, (*NO_MEMORY, 'SIGSEGV'))}"
    said = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "it said nothing")
    return f"ended with code {code}: {said.removeprefix('error: ')}"
