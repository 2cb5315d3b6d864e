"""The simulated parts in the place of real ones: clients of Kafka, clocks, and sizes small enough that every history has several of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from tests.simulation.filling import kafka, lake
from tests.simulation.filling.project import T0

from tidemill.archive import load
from tidemill.catalogue import definitions, plan
from tidemill.catalogue.definitions import project_of
from tidemill.declarations.written import read_event, read_view, write_event, write_view
from tidemill.kafka import client, read_to_end
from tidemill.kernel.view import ViewKernel
from tidemill.operations import applying
from tidemill.operations.fill import around, job, private_log
from tidemill.runtime import supervise
from tidemill.streams import catalogue_log, following
from tidemill_ingestion import consumer

Change = tuple[Any, str, Any]


class Clock:
    """In the place of the module `time`."""

    @staticmethod
    def monotonic() -> float:
        """Simulated seconds."""
        return asyncio.get_running_loop().time()


def _now_ms() -> int:
    return T0 + int(1000 * Clock.monotonic())


class Once:
    """A function of declarations, called once for each content of its arguments: what is declared is never changed. So no process compiles
    again what others have compiled."""

    def __init__(self, function: Callable[..., Any], content: Callable[..., Any] = lambda *args: args, most: int = 300) -> None:
        self._function, self._content, self._most = function, content, most
        self._known: dict[bytes, Any] = {}

    def __call__(self, *args: Any) -> Any:
        """Its result."""
        key = msgspec.json.encode(self._content(*args))
        if key not in self._known:
            if len(self._known) == self._most:
                self._known.clear()
            self._known[key] = self._function(*args)
        return self._known[key]


_kernel = Once(ViewKernel, lambda view: (write_view(view), write_event(view.source)))
_project = Once(project_of)
_event = Once(read_event)
_view = Once(read_view, lambda written, source: (written, write_event(source)))


def changes(quiet: Any) -> list[Change]:
    """What is changed: (owner, name, value)s. `quiet`: a logger that says nothing."""
    loud = (client, consumer, following, supervise)
    clients = {
        "send_wave": (catalogue_log, private_log, consumer),
        "started_producer": (catalogue_log, job),
        "start_producer": (consumer,),
        "close_producer": (consumer,),
        "committed_with_metadata": (consumer,),
        "assignment_of": (consumer,),
        "ensure_topics": (applying, following, job),
        "offset_ranges": (applying, around, job, private_log, read_to_end),
        "committed": (around,),
        "existing_logs": (around,),
    }
    return [
        *((module, "log", quiet) for module in loud),
        *((module, name, getattr(kafka, name)) for name, modules in clients.items() for module in modules),
        *((module, "now_ms", _now_ms) for module in (applying, load)),
        *((module, "project_of", _project) for module in (applying, following, plan)),
        *((module, "read_event", _event) for module in (definitions, plan)),
        *((module, "read_view", _view) for module in (definitions, plan)),
        (consumer, "consumer", kafka.GroupConsumer),
        (plan, "ViewKernel", _kernel),
        (job, "time", Clock),
        (job, "WAVE_RECORDS", 8),
        (job, "LITTLE", 2),
        (job, "slices", lake.slices),
        *((module, name, getattr(lake, name)) for module in (around, job) for name in ("loads", "unfinished")),
        (around, "lacking", lambda snapshot, event: set[str]()),
        (around, "beginnings", lambda snapshot, event: dict[str, int | None]()),
        (load, "COMMIT_ROWS", 5),
        (load, "copies", lambda store, folder, rows: np.zeros(len(rows), bool)),
    ]
