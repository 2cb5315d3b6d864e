"""Records, as the topics have them."""

from __future__ import annotations

from typing import Any

from tidemill.records import AlertRecord, PredictionRecord, ResultRecord
from tidemill.retrainings import RetrainingRecord, RetrainingStep

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_767_225_600_000


def step(name: RetrainingStep, at: int, run: int = NOW_MS, model: str = "late", **more: Any) -> RetrainingRecord:
    """A step of a run."""
    return RetrainingRecord(model, run, name, at, "because", **more)


def alert(name: str, kind: Any = "performance", state: Any = "opened", version: str = "v1", subject: str = "auc") -> AlertRecord:
    """An alert of drift detection about the champion."""
    return AlertRecord(name, "late", version, kind, subject, state, 0, 1, "t", 1.0, 0.5, 0.3, 900, f"{subject} moved", source="drift")


def answered(name: str, version: str, output: float, served: int = 0, **more: Any) -> PredictionRecord:
    """An answer of a version, or of a shadow."""
    return PredictionRecord(
        name, "late", version, more.pop("at", 0), served, more.pop("inputs", [1.0, 2.0]), output, more.pop("subject", name), **more
    )


def became(name: str, version: str, output: float, outcome: float | str | None, **more: Any) -> ResultRecord:
    """What became of a request."""
    return ResultRecord(0, name, "late", version, name, 0, output, "never" if outcome is None else "joined", 1, outcome, **more)
