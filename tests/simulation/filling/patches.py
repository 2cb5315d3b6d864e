"""The simulated parts in the place of real ones: clients of Kafka, clocks, and sizes small enough that every history has several of each."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
from tests.simulation.filling import kafka
from tests.simulation.filling.project import T0

from tidemill.archive import load, writer
from tidemill.catalogue import plan
from tidemill.catalogue.definitions import Definitions, project_of
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_event, write_view
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


_KERNELS: dict[bytes, ViewKernel] = {}


def _kernel(view: FeatureView) -> ViewKernel:
    """Compiled once for each definition: a plan only compares them."""
    written = msgspec.json.encode((write_view(view), write_event(view.source)))
    if written not in _KERNELS:
        _KERNELS[written] = ViewKernel(view)
    return _KERNELS[written]


_PROJECTS: dict[bytes, Project] = {}


def _project_of(found: Definitions, name: str) -> Project:
    """Read once, not by every process: what is declared is never changed. Of the records of one history, which are few."""
    written = msgspec.json.encode(found)
    if written not in _PROJECTS:
        if len(_PROJECTS) > 100:
            _PROJECTS.clear()
        _PROJECTS[written] = project_of(found, name)
    return _PROJECTS[written]


def changes(quiet: Any) -> list[Change]:
    """What is changed: (owner, name, value)s. `quiet`: a logger that says nothing."""
    loud = (client, consumer, following, supervise, writer)
    clients = {
        "send_wave": (catalogue_log, private_log, consumer),
        "started_producer": (catalogue_log, job),
        "start_producer": (consumer,),
        "close_producer": (consumer,),
        "committed_with_metadata": (consumer,),
        "ensure_topics": (applying, following, job),
        "offset_ranges": (applying, around, job, private_log, read_to_end, writer),
        "committed": (around,),
        "existing_logs": (around,),
    }
    return [
        *((module, "log", quiet) for module in loud),
        *((module, name, getattr(kafka, name)) for name, modules in clients.items() for module in modules),
        *((module, "now_ms", _now_ms) for module in (applying, load, writer)),
        *((module, "project_of", _project_of) for module in (applying, following, plan)),
        (consumer, "consumer", kafka.GroupConsumer),
        (plan, "ViewKernel", _kernel),
        (job, "time", Clock),
        (job, "WAVE_RECORDS", 4),
        (job, "LITTLE", 2),
        (job, "slices", partial(job.slices, most=9)),
        (load, "COMMIT_ROWS", 5),
    ]
