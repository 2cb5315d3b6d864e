"""Pid files and ports of a data folder: they show the processes that an earlier run left, and give each run the same addresses."""

import json
import os
import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tidemill.errors import TidemillError

HOST = "127.0.0.1"
PORTS = "15000-31999"  # below the ephemeral ports, which any outgoing connection may take while a server is down


class StackError(TidemillError):
    """The local stack cannot do what was asked."""


class NotReady(StackError):
    """A process of the local stack is not ready in time, or ended."""


def running(home: Path, name: str) -> psutil.Process | None:
    """Return the live process NAME of this data folder, or None when its pid file is absent, stale or names another process."""
    try:
        process = psutil.Process(int((home / "run" / f"{name}.pid").read_text()))
        ours = process.environ().get("TIDEMILL_PROCESS") == f"{home}:{name}"
    except (OSError, ValueError, psutil.Error):
        return None
    return process if ours else None


def alive(pid: int) -> bool:
    """Whether a process of this pid runs; one that is dead but not waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def stop(home: Path, name: str, timeout_seconds: float) -> bool:
    """End the process NAME of this data folder: SIGTERM, then SIGKILL after the timeout. Return whether there was one."""
    process = running(home, name)
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(timeout_seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(timeout_seconds)
    return True


def stop_leftovers(home: Path) -> list[str]:
    """End every process that an earlier run of this data folder left running, and return their names."""
    names = [path.stem for path in sorted((home / "run").glob("*.pid")) if path.stem != "supervisor"]
    return [name for name in names if stop(home, name, timeout_seconds=10)]


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def assign_ports(home: Path, names: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Return a port for each name: the one given, else the one this data folder had before, else a free one.

    The result is stored in ``ports.json``. Raises `StackError` for a port that somebody else listens on.
    """
    file = home / "ports.json"
    kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    taken = {*kept.values(), *given.values()}
    ports = {name: given.get(name) or kept.get(name) or free_port(taken) for name in names}
    for name, port in ports.items():
        if not is_free(port):
            mend = "give another one" if name in given else f"free it, or delete {file} to choose new ones"
            raise StackError(f"port {port} of {name} is in use by another process", mend=mend)
        kept[name] = port
    file.write_text(json.dumps(kept, indent=1))
    return ports


def free_port(taken: set[int]) -> int:
    """Return a port that a server may be started on, and started again, and add it to `taken`. Raises `StackError` when there is none.

    `TIDEMILL_PORTS` in the environment says from which ports: stacks that start at the same moment, each with ports of its own, cannot
    choose the same.
    """
    span = _span(os.environ.get("TIDEMILL_PORTS") or PORTS)
    port = next((port for port in random.SystemRandom().sample(span, len(span)) if port not in taken and is_free(port)), None)
    if port is None:
        raise StackError(f"no free port between {span.start} and {span.stop - 1}", mend="set TIDEMILL_PORTS to others")
    taken.add(port)
    return port


def _span(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < 65_536):
        raise StackError(f"TIDEMILL_PORTS is {text!r}", mend=f"set it to the first port and the last one, as {PORTS}")
    return range(int(first), int(last) + 1)


def last_lines(file: Path, count: int) -> str:
    """Return the last lines of a log file; empty when there is none yet."""
    return "\n".join(lines_at_end(file, 4_000 * count)[-count:])


def lines_at_end(file: Path, most_bytes: int) -> list[str]:
    """Return the lines in the last bytes of a log file, of which the first may be cut; none when there is no file yet."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - most_bytes))
            return [line.decode(errors="replace") for line in log.read().splitlines()]
    except FileNotFoundError:
        return []
