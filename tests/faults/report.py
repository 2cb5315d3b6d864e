"""What a run found, as it goes and in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from tests.faults.resources import Usage
from tests.faults.tally import COUNTS, Tally


class KindFigures(msgspec.Struct):
    """How often a kind struck, and the longest recovery after it."""

    count: int = 0
    worst_recovery_seconds: float = 0.0


class Report(msgspec.Struct, kw_only=True):
    """A run. `events`: acknowledged by Kafka, each once. `kinds`: different faults (a mechanism at a target); `never`: those that were asked for
    and did not strike. `missed`: strikes without effect.
    `changes`: versions of views that came in force, by so many `commands` that were run."""

    seed: int
    kinds: int = 0
    faults: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    predictions_missing: int = 0
    predictions_doubled: int = 0
    worst_recovery_seconds: float = 0.0
    seconds: float = 0.0
    predictions: int = 0
    requests_repeated: int = 0
    silences: int = 0
    missed: int = 0
    changes: int = 0
    commands: int = 0
    never: list[str] = []
    checked: dict[str, int] = {}
    rewinds: int = 0
    dead_letters: int = 0
    results: dict[str, int] = {}
    by_kind: dict[str, KindFigures] = {}
    resources: dict[str, Usage] = {}
    table_files: int = 0
    findings: list[str] = []
    command: str = ""

    def take(self, tally: Tally) -> None:
        """Take over the counts of what is wrong."""
        for name in COUNTS:
            setattr(self, name, tally.counts[name])
        self.findings = tally.findings

    def struck(self, kinds: list[str], recovery_seconds: float) -> None:
        """Count a fault, or several at once."""
        for kind in kinds:
            figures = self.by_kind.setdefault(kind, KindFigures())
            figures.count += 1
            figures.worst_recovery_seconds = max(figures.worst_recovery_seconds, round(recovery_seconds, 2))
        self.faults += len(kinds)
        self.kinds = len(self.by_kind)
        self.worst_recovery_seconds = max(self.worst_recovery_seconds, round(recovery_seconds, 2))

    @property
    def wrong(self) -> bool:
        """Whether anything is."""
        return bool(self.findings or self.silences or any(getattr(self, name) for name in COUNTS))


class Display:
    """Shows a run while it goes: a table on a terminal, lines elsewhere."""

    def __init__(self, report: Report, figures: Callable[[], dict[str, Any]]) -> None:
        self._console = Console()
        self._report, self._figures = report, figures
        self._began = time.monotonic()
        self._state = "starting"
        self._lines: list[str] = []
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2) if self._console.is_terminal else None

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def state(self, text: str) -> None:
        """What happens now."""
        self._state = text
        if not self._live:
            print(f"{self._elapsed()} {text}", flush=True)

    def line(self, text: str) -> None:
        """Something that happened."""
        self._lines = [*self._lines[-11:], f"{self._elapsed()} {text}"]
        if not self._live:
            print(self._lines[-1], flush=True)

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:3d}:{seconds:02d}"

    def _render(self) -> Group:
        table = Table(show_header=False, box=None)
        figures = {"seed": self._report.seed, "faults": self._report.faults, "kinds": self._report.kinds, **self._figures()}
        figures["worst recovery"] = f"{self._report.worst_recovery_seconds:g} s"
        for name, value in figures.items():
            table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) and name != "seed" else str(value))
        return Group(table, *self._lines, f"{self._elapsed()} {self._state}")
