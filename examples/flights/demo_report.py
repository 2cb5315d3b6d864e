"""The report at the end of the demo: a table by month, the proofs, and report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from demo_calendar import Compared
from demo_loop import COUNTED, counted, months_of, quality, told
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tidemill.records import AlertRecord
from tidemill.retrainings import RetrainingRecord

WAYS = ("without windows", "frozen", "monthly", "loop")
"""How requests are answered: by the first model without windows, by the first model, by one that is trained at each month's begin, and as they were."""


@dataclass(frozen=True)
class Facts:
    """Everything the report says. `ways`: by name of `WAYS` the AUC, the calibration error, and how often it was trained, promoted and taken back."""

    events: int
    predictions: int
    outcomes_joined: int
    auc: float
    auc_without_windows: float
    ways: dict[str, dict[str, float]]
    months: list[dict[str, Any]]
    audit: dict[str, int]
    replay: dict[str, int]
    verify: dict[str, int]
    dead_letters: int
    seconds: float
    training_seconds: float

    @property
    def proved(self) -> bool:
        """Whether no value differs, neither from the rows nor from SQL, and every replayed prediction is equal."""
        differ = self.audit["mismatched"] + self.verify["differ"] + self.replay["checked"] - self.replay["equal"]
        return differ == 0 and self.audit["checked"] > 0 and self.verify["values"] > 0

    def write(self, path: Path) -> None:
        """Writes report.json."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def facts_of(found: Compared, steps: Sequence[RetrainingRecord], alerts: Sequence[AlertRecord]) -> dict[str, Any]:
    """The months and the totals, of the same requests for every way."""
    asked, month = found.asked, months_of(found.asked.time_ms)
    names = np.unique(month)
    answers = dict(zip(WAYS, (found.plain, found.frozen, np.concatenate(found.calendar), asked.output), strict=True))
    retrained = {"monthly": {"retrainings": len(names) - 1, "promotions": len(names) - 1}, "loop": counted(steps)}
    ways = {way: asdict(quality(asked.outcome, given)) | retrained.get(way, {}) for way, given in answers.items()}
    months = [
        {
            "month": str(name),
            "flights": int(mine.sum()),
            "late_share": float(asked.outcome[mine].mean()),
            "auc": {way: quality(asked.outcome[mine], given[mine]).auc for way, given in answers.items()},
            "alerts": _alerts_of(alerts, str(name)),
            "runs": told(steps, str(name)),
        }
        for name in names
        for mine in [month == name]
    ]
    return {
        "months": months,
        "ways": ways,
        "outcomes_joined": len(asked.outcome),
        "auc": ways["loop"]["auc"],
        "auc_without_windows": ways["without windows"]["auc"],
    }


def _alerts_of(alerts: Sequence[AlertRecord], month: str) -> list[str]:
    """What was opened in a month, for example "feature_drift weather__last_temp"."""
    return [
        f"{alert.kind} {alert.subject}"
        for alert in alerts
        if alert.state == "opened" and f"{datetime.fromtimestamp((alert.end - 1) / 1000, UTC):%Y-%m}" == month
    ]


def closing(facts: Facts, report: Path, console: Console | None = None) -> None:
    """Prints what was reached."""
    console = console or Console()
    console.print(_by_month(facts.months))
    console.print(_by_way(facts))
    console.print(
        f"time stood still for {facts.training_seconds:.0f} s in all, while versions were trained; all else happened as the months went by"
    )
    console.print(
        f"{facts.events:,} events in, {facts.predictions:,} predictions logged, {facts.outcomes_joined:,} joined with their outcome,"
        f" {facts.dead_letters} dead letters"
    )
    console.print(f"audit   online = offline: {facts.audit['checked']:,} values compared, {facts.audit['mismatched']} differ")
    console.print(
        f"replay  {facts.replay['checked']:,} logged predictions recomputed from Parquet, {facts.replay['equal']:,} equal bit for bit"
    )
    verify = facts.verify
    console.print(
        f"verify  recomputed by a second implementation (SQL) from raw events: {verify['values']:,} values, {verify['labels']:,} labels,"
        f" {verify['rows']:,} training rows, differences {verify['differ']}"
    )
    console.print(f"{facts.seconds:.0f} s in all; the same facts are in {report}")
    console.print(
        "\nnext:  make up   starts the stack and keeps it;  tidemill --help;  your own project: examples/flights/README.md", style="dim"
    )


def _by_month(months: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("month", "flights", "late", *WAYS, "alerts", "what the loop did", title=f"flights, {_span(months)}: AUC of each way")
    for row in months:
        areas = (f"{row['auc'][way]:.3f}" for way in WAYS)
        table.add_row(
            row["month"], f"{row['flights']:,}", f"{row['late_share']:.1%}", *areas, str(len(row["alerts"])), ", ".join(row["runs"])
        )
    return table


def _by_way(facts: Facts) -> Table:
    title = f"{facts.outcomes_joined:,} flights, {_span(facts.months)}"
    table = Table("way", "AUC", "calibration error", *COUNTED, title=title, box=SIMPLE_HEAD)
    for way, found in facts.ways.items():
        counts = (str(int(found.get(name, 0))) for name in COUNTED)
        table.add_row(way, f"{found['auc']:.4f}", f"{found['calibration_error']:.4f}", *counts)
    return table


def _span(months: Sequence[Mapping[str, Any]]) -> str:
    first, last = (datetime.fromisoformat(f"{months[place]['month']}-01").replace(tzinfo=UTC) for place in (0, -1))
    return f"{first:%B} to {last:%B} 2013" if first < last else f"{first:%B} 2013"
