"""How often the process of a service ended without a request to end. A small file counts over restarts; a metric shows the counts.

    exits.begin("offline")     # at the start: if the previous run noted no end, it was killed
    exits.end(None)            # at the end: None on request, else "failed" or "stuck"

The file lies in `TIDEMILL_RUN_FOLDER`: a folder that outlives the process and belongs to it alone. Without it each process counts from 0.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import Field

from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import Settings

log = get_logger(__name__)

Reason = Literal["stuck", "failed", "killed"]
REASONS: tuple[Reason, ...] = ("stuck", "failed", "killed")


class ExitSettings(Settings):
    """Where the file of the counts lies."""

    folder: str | None = Field(
        None, validation_alias="TIDEMILL_RUN_FOLDER", description="a folder that outlives the process, for one process of each service"
    )


class _EndCounts(msgspec.Struct):
    """The content of the file. `running`: whether a run has begun and has not ended."""

    running: bool
    counts: dict[Reason, int] = {}


class _Ledger:
    """The file of a service, read when this process begins."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.kept = _EndCounts(running=False)
        try:
            if path is not None and path.exists():
                self.kept = msgspec.json.decode(path.read_bytes(), type=_EndCounts)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the count of earlier ends is lost", path=str(path), reason=str(error))

    def note(self, reason: Reason | None, *, running: bool) -> None:
        """Counts an end and writes the file. If that fails, a warning is logged and the process goes on: nothing depends on the file."""
        self.kept.running = running
        if reason is not None:
            self.kept.counts[reason] = self.kept.counts.get(reason, 0) + 1
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(self.kept))
            os.replace(fresh, self._path)
        except OSError as error:
            log.warning("ends of this process cannot be counted", path=str(self._path), reason=str(error))


_current: _Ledger | None = None  # a process begins once and ends once


def begin(service: str) -> None:
    """Notes that the process of a service begins; the metric then shows how earlier processes ended."""
    global _current  # noqa: PLW0603
    folder = ExitSettings.load().folder
    _current = _Ledger(Path(folder) / f"{service}.exits.json" if folder else None)
    _current.note("killed" if _current.kept.running else None, running=True)
    for reason in REASONS:
        metrics.PROCESS_EXITS.labels(reason).inc(_current.kept.counts.get(reason, 0))


def end(reason: Reason | None) -> None:
    """Notes that the process ends, and why; None: on request."""
    if _current is not None:
        _current.note(reason, running=False)
