"""Progress bars of filling and waiting."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tidemill.catalogue.definitions import ViewVersion
from tidemill.declarations import FeatureView
from tidemill.operations.fill.job import Filled, Phase

_PHASES = {"archive": "from the archive", "live": "from the topic"}


class Bars:
    """A bar for each phase of each version, inside `with`. It is the `Watcher` of a plan that is applied."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
        )
        self._progress, self._tasks, self._console = Progress(*columns, console=console), dict[str, TaskID](), console

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def filling(self, version: ViewVersion, phase: Phase, done: int, total: int) -> None:
        """See `Watcher`."""
        self._show(f"{version.log} {_PHASES[phase]}", "events", done, total)

    def filled(self, version: ViewVersion, done: Filled) -> None:
        """See `Watcher`."""
        kinds = (done.passed_over, "by where"), (done.unkeyed, "without a key"), (done.ahead, "too far ahead")
        left_out = [f"{events:,} {why}" for events, why in kinds if events]
        told = f"; left out: {', '.join(left_out)}" if left_out else ""
        self._console.print(
            f"{version.log}: {done.archived:,} events from the archive, {done.live:,} from the topic{told}; handed over to ingestion",
            highlight=False,
        )  # fmt: skip

    def waiting(self, view: FeatureView, online: int, offline: int, total: int) -> None:
        """See `Watcher`."""
        self._show(f"{view.log} folded", "records", online, total)
        self._show(f"{view.log} mirrored", "records", offline, total)

    def _show(self, what: str, unit: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, unit=unit)
        self._progress.update(self._tasks[what], completed=done, total=total)
