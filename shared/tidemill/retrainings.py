"""The records of retrainings: each step of a run, with what the gate looked at."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidemill.records import Milliseconds, Natural, Record, Share

LossName = Literal["brier", "log_loss", "absolute", "squared"]
"""What an answer loses once its outcome is known."""


class GateFinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that the gate looked at, in words and numbers. `verdict`: for the challenger, against it, or open for want of evidence; `champion`,
    `challenger`: the figure of each; `low`, `high`: bounds of the difference; `rows`: how many requests it is about."""

    name: str
    verdict: Literal["for", "against", "open"]
    said: str
    champion: float | None = None
    challenger: float | None = None
    low: float | None = None
    high: float | None = None
    rows: Natural = 0


RetrainingStep = Literal[
    "asked",
    "begun",
    "skipped",
    "trained",
    "rehearsed",
    "shadow",
    "canary",
    "promoted",
    "kept",
    "rejected",
    "failed",
    "rolled back",
    "waiting",
]
RetrainingTrigger = Literal["hand", "drift", "performance", "skew", "data", "schedule", "code"]


class RetrainingRecord(Record, frozen=True):
    """One step of a retraining (topic `<project>.retraining`, key = model). What a run did is the sequence of its records.

    `run`: names it, and is the moment at which it began, in ms, or of "asked" and "skipped" the moment itself; `at`: when the step was taken; `reason`: why, in words;
    `trigger`, `causes`: what began the run, and the alerts that did; `version`: the new version; `champion`: the one that it is measured by; `share`: of the requests, in
    canary; `evidence`: what the gate looked at; `ends`: where the topics of predictions, shadows and results ended before the step: the next offset of each partition.
    """

    model: str
    run: Natural
    step: RetrainingStep
    at: Milliseconds
    reason: str
    trigger: RetrainingTrigger | None = None
    causes: list[str] = []
    version: str = ""
    champion: str = ""
    share: Share = 0.0
    evidence: list[GateFinding] = []
    ends: dict[str, list[Natural]] = {}
