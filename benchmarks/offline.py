"""How many rows per second the offline writer mirrors from a view topic into its Delta table, from a backlog on a real Kafka.

python -m benchmarks.offline
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import psutil
from benchmarks.features import MINUTE_MS, VIEW, Source, backlog, cpu_seconds, running
from benchmarks.figures import Figure

from tidemill.errors import UnknownTable
from tidemill.local.services import choose
from tidemill.local.stack import Stack
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore


def mirrored(stack: Stack) -> int:
    """How many rows the table has."""
    try:
        return sum(OfflineStore(stack.offline).snapshot(view_folder(VIEW.log)).positions.values())
    except UnknownTable:
        return 0


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Rows per second of wall time, from the first commit that is seen to the last, and of the process's CPU time."""
    events = 200_000 if quick else 1_000_000
    with running(choose(["offline"])) as stack:
        stack.halt("offline")
        asyncio.run(backlog(stack, Source(), events, MINUTE_MS))
        stack.supervisor.start("offline")
        while not (first := mirrored(stack)):
            time.sleep(0.01)
        writer = psutil.Process(stack.pid("offline"))
        began, cpu = time.monotonic(), cpu_seconds(writer)
        while (last := mirrored(stack)) < events:
            time.sleep(0.05)
        seconds, spent = time.monotonic() - began, cpu_seconds(writer) - cpu
    yield Figure("offline writer", (last - first) / seconds, "rows/s", {"per CPU second": (last - first) / spent})


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
