"""What a person sees of a training: bars on a terminal with the notes above them, the notes alone in a pipe or a file."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class StageBars:
    """A bar for the stages, and one for the parts of a long stage, inside `with`."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._console, self._tasks = console, dict[str, TaskID]()
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._console.file, flush=True)

    def watch(self, what: str, done: int, total: int) -> None:
        """How far something is."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
