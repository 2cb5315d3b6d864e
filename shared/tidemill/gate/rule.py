"""What is asked of a challenger, and what the gate says about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tidemill.retrainings import GateFinding

Verdict = Literal["wait", "promote", "reject", "roll back"]


class Rule(NamedTuple):
    """What is asked of a challenger. `budget`: the chance that one that is not better is promoted, over all looks together; the chance that one
    that is not worse is rolled back, too.

    `least`: with fewer independent outcomes nothing is decided for it; `most`: with so many it is decided against it. `apart`: by how much its calibration
    error may lie above the champion's; `answered`: the share of requests that it must answer; `missing`: by how many points more of an input may be missing
    than in its training.
    """

    budget: float = 0.05
    least: int = 200
    most: int = 50_000
    apart: float = 0.02
    answered: float = 0.95
    missing: float = 0.2


class Decision(NamedTuple):
    """What to do, why in words, and all that was looked at."""

    verdict: Verdict
    reason: str
    findings: list[GateFinding]
