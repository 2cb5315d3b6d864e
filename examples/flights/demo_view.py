"""The live view of the demo: where the replay stands, how fast it runs, how good the model is, and what drifted."""

from __future__ import annotations

import io
import re
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from demo_watch import Watcher
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tidemill.operations.playback import PlayedStep

_ALERT_LINES = 8
_RATE_SECONDS = 5.0
_REASON = 200  # characters


class Screen:
    """Shows progress: a live view in a terminal, else a line a month."""

    def __init__(self) -> None:
        self._console = Console()
        self._began = time.monotonic()
        self._title = self._month = ""
        self._watcher: Watcher | None = None
        self._recent: deque[tuple[float, int, int]] = deque()
        self._last: PlayedStep | None = None
        self._picture: RenderableType = ""
        self.events = self.predictions = self._told = 0
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._render, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def watch(self, watcher: Watcher) -> None:
        """Shows this watcher's results and alerts from now on."""
        self._watcher = watcher

    def chapter(self, title: str) -> None:
        """A new part of the demo begins."""
        self._title = title
        self._last = None
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  [bold]{title}[/bold]")

    def note(self, text: str) -> None:
        """One line of detail."""
        self._console.print(f"          {text}", style="dim", highlight=False, markup=False)

    def step(self, step: PlayedStep) -> None:
        """Counts what a step did."""
        self.events += step.events
        self.predictions += len(step.answers)
        self._last = step
        now = time.monotonic()
        self._recent.append((now, self.events, self.predictions))
        while now - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()
        self._tell_retraining()
        if step.answers:
            self._picture = self._render()
        month = f"{datetime.fromtimestamp((step.time_ms - 1) / 1000, UTC):%B}"
        if month != self._month:
            self._month = month
            if not self._console.is_terminal:
                auc = self._watcher.auc if self._watcher else None
                self.note(f"{month}: {self.events:,} events, {self.predictions:,} predictions so far" + (f", AUC {auc:.3f}" if auc else ""))

    def _tell_retraining(self) -> None:
        """A line for each new step of a retraining, with the reason, which may be long."""
        steps = self._watcher.steps if self._watcher else []
        for step in steps[self._told :]:
            reason = step.reason if len(step.reason) <= _REASON else step.reason[:_REASON] + " ..."
            self.note(f"{datetime.fromtimestamp(step.at / 1000, UTC):%d %b}  {step.step}: {reason}")
        self._told = len(steps)

    def save(self, path: Path) -> None:
        """Saves the last view of the replay as a picture."""
        console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
        console.print(self._picture)
        picture = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="make demo"), flags=re.DOTALL)  # no fonts from elsewhere
        path.write_text(picture)

    def _rates(self) -> tuple[float, float]:
        if len(self._recent) < 2:
            return 0.0, 0.0
        (start, events, predictions), (end, events_now, predictions_now) = self._recent[0], self._recent[-1]
        return (events_now - events) / (end - start), (predictions_now - predictions) / (end - start)

    def _render(self) -> RenderableType:
        if self._last is None:
            return Text(f"{time.monotonic() - self._began:6.1f} s  {self._title} ...", style="dim")
        events_rate, predictions_rate = self._rates()
        table = Table.grid(padding=(0, 3))
        rows = [
            ("event time", f"[bold]{datetime.fromtimestamp(self._last.time_ms / 1000, UTC):%a %d %b %Y %H:%M}[/bold]"),
            ("events", f"{self.events:,}   ({events_rate:,.0f}/s)"),
            ("published to applied", f"{self._last.barrier_seconds * 1000:.0f} ms, lag 0 at every request"),
        ]
        if self._watcher is not None:
            auc = self._watcher.auc
            rows += [
                ("predictions", f"{self.predictions:,}   ({predictions_rate:,.0f}/s)"),
                ("outcomes joined", f"{self._watcher.results:,}"),
                ("AUC so far", f"[bold green]{auc:.4f}[/bold green]" if auc else "-"),
                ("alerts", f"{len(self._watcher.alerts)}"),
                ("retraining", self._watcher.steps[-1].step if self._watcher.steps else "-"),
            ]
        for name, value in rows:
            table.add_row(f"[dim]{name}[/dim]", value)
        return Panel(Group(table, *self._alert_lines()), title=f"tidemill  {self._title}", border_style="cyan", width=100)

    def _alert_lines(self) -> list[Text]:
        alerts = self._watcher.alerts if self._watcher else []
        return [
            Text(f"{alert.state:>9}  {alert.message}", style="yellow", overflow="ellipsis", no_wrap=True)
            for alert in alerts[-_ALERT_LINES:]
        ]
