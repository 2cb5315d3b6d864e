"""Processes of a Ray cluster that search parameters, on this machine and on others."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tidemill.errors import MissingExtra, Unavailable

LOCAL = "local"
_STARTS_SECONDS = 120.0
_REACH_SECONDS = 10.0
_NOT_SENT = (".git", ".tidemill", ".venv", "mlruns", "*.parquet", "*.csv", "*.csv.gz", "*.jsonl", "*.jsonl.gz")


class RayUnavailable(Unavailable):
    """The cluster cannot be used."""


class RayPool(Executor):
    """As many processes of a cluster as `processes`, each of which loads the project once. `address`: of a cluster ("auto",
    "ray://host:10001"), or "local" for one on this machine; `spec`: the project's folder, file or module: a folder, or that of the file,
    is sent to the cluster, whose machines need the tidemill of this one. As a context manager it ends the processes.

    Raises MissingExtra, and RayUnavailable.
    """

    def __init__(self, address: str, processes: int, spec: str, load: Callable[..., None], *loaded: Any) -> None:
        if find_spec("ray") is None:
            raise MissingExtra("ray", "ray")
        self._ray = import_module("ray")
        path = Path(spec)
        folder = str(path if path.is_dir() else path.parent)
        sent = {"working_dir": folder, "excludes": [*_NOT_SENT]} if path.exists() else {}
        there = ("." if path.is_dir() else path.name) if path.exists() else spec
        try:
            _reach(address)
            self._ray.init(
                address=None if address == LOCAL else address,
                num_cpus=processes if address == LOCAL else None,
                runtime_env=sent,
                include_dashboard=False if address == LOCAL else None,
                log_to_driver=False,
                logging_level="error",
            )
            made = self._ray.remote(num_cpus=1)(_Process)
            self._idle = [made.remote() for _ in range(processes)]
            self._ray.get([process.load.remote(load, there, *loaded) for process in self._idle], timeout=_STARTS_SECONDS)
        except Exception as error:  # the exceptions of Ray have no common root
            self._ray.shutdown()
            raise RayUnavailable(
                f"no {processes} processes on Ray at {address!r}: {' '.join(str(error).split())[:300]}",
                mend="see that the cluster has as many free processors, and tidemill installed; or unset TIDEMILL_RAY",
            ) from error

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """Calls the function in a process that has nothing to do. At most as many calls as processes may go on at once."""
        process = self._idle.pop()
        future: Future[Any] = process.call.remote(function, *arguments, **named).future()
        future.add_done_callback(lambda _: self._idle.append(process))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes, and the cluster that was started here."""
        self._ray.shutdown()


def _reach(address: str) -> None:
    """Ray itself asks for minutes. Raises OSError when nobody listens at HOST:PORT."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), _REACH_SECONDS).close()


class _Process:
    """A process of the cluster."""

    def load(self, load: Callable[..., None], *loaded: Any) -> None:
        """What is loaded once."""
        load(*loaded)

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One call."""
        return function(*arguments, **named)
