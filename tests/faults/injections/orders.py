"""Orders to a hooked service: what it shall do when it next reaches a named point of its work.

An order is a file, one per process, written by the test and removed by the process when it was carried out. So it outlives a restart of
either, and an order that is gone was obeyed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import msgspec

_WANTED, _UNDER_WAY = "wanted", "under way"


class Order(msgspec.Struct, frozen=True):
    """At the `count`-th time that `point` is reached (and at the `times` - 1 after it) do this.

    `kill`: end as by kill -9, `seconds` later. `raise`: an error that nobody has thought of. `sleep`: hold the whole thread, and with it the
    event loop that runs in it, for so many seconds.
    """

    point: str
    action: Literal["kill", "raise", "sleep"]
    seconds: float = 0.0
    count: int = 1
    times: int = 1


class Sabotage(Exception):
    """What the action `raise` raises."""


def give(folder: Path, process: str, order: Order) -> None:
    """Leave an order for a process."""
    folder.mkdir(exist_ok=True)
    draft = folder / f"{process}.new"
    draft.write_bytes(msgspec.json.encode(order))
    draft.replace(_file(folder, process))


def waiting(folder: Path, process: str) -> bool:
    """Whether a process has not carried its order out yet."""
    return _file(folder, process).exists()


def withdraw(folder: Path, process: str) -> bool:
    """Take an order back. Returns whether it was still waiting."""
    try:
        _file(folder, process).unlink()
    except FileNotFoundError:
        return False
    return True


def want(folder: Path, command: str) -> None:
    """Ask the operator to run a command soon."""
    folder.mkdir(exist_ok=True)
    (folder / f"{command}.{_WANTED}").touch()


def take(folder: Path) -> set[str]:
    """The commands that the operator is asked for; they are under way now."""
    commands = {file.stem for file in folder.glob(f"*.{_WANTED}")}
    for command in commands:
        (folder / f"{command}.{_WANTED}").replace(folder / f"{command}.{_UNDER_WAY}")
    return commands


def ended(folder: Path, commands: set[str]) -> None:
    """Note that these commands ended well."""
    for command in commands:
        (folder / f"{command}.{_UNDER_WAY}").unlink()


def to_come(folder: Path, command: str = "*") -> bool:
    """Whether a command (or any) that was asked for has not ended well yet."""
    return any(any(folder.glob(f"{command}.{state}")) for state in (_WANTED, _UNDER_WAY))


def set_clock(folder: Path, seconds: float) -> None:
    """Let the wall clock of every hooked process go wrong by so much, from within a tenth of a second on."""
    folder.mkdir(exist_ok=True)
    draft = folder / "clock.new"
    draft.write_text(str(seconds))
    draft.replace(folder / "clock")


def _file(folder: Path, process: str) -> Path:
    return folder / f"{process}.json"


class Obedience:
    """The process' side: asks at each point whether there is something to be done."""

    def __init__(self, folder: Path, process: str) -> None:
        self._file = _file(folder, process)
        self._lock = threading.Lock()
        self._given_ns = 0
        self._reached = 0

    def reach(self, point: str) -> None:
        """This point is reached now."""
        try:
            given_ns = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return
        with self._lock:
            order = self._due(point, given_ns)
        if order is not None:
            _do(order)

    def _due(self, point: str, given_ns: int) -> Order | None:
        try:
            order = msgspec.json.decode(self._file.read_bytes(), type=Order)
        except FileNotFoundError:
            return None
        if order.point != point:
            return None
        if given_ns != self._given_ns:
            self._given_ns, self._reached = given_ns, 0
        self._reached += 1
        if self._reached < order.count:
            return None
        if self._reached >= order.count + order.times - 1:
            self._file.unlink(missing_ok=True)
        return order


def _do(order: Order) -> None:
    print(f'{{"event": "order", "point": "{order.point}", "action": "{order.action}"}}', file=sys.__stderr__, flush=True)
    match order.action:
        case "kill" if order.seconds:
            threading.Timer(order.seconds, _die).start()
        case "kill":
            _die()
        case "raise":
            raise Sabotage(f"ordered at {order.point}")
        case "sleep":
            time.sleep(order.seconds)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
