"""Episodes: an operator hears when something begins, when it gets clearly worse, and when it is over; not every window.

Which episodes are open follows from the alerts sent so far and from nothing else. So a restart reads them from the topic of alerts.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

from tidemill.records import AlertRecord
from tidemill_drift.compare import Finding

WORSE = 1.5
State = Literal["opened", "worsened", "closed"]


class JudgedWindow(NamedTuple):
    """Which stretch of event time of which model version was compared, and how many rows it had."""

    model: str
    version: str
    start: int
    end: int
    rows: int


class Episodes:
    """Open episodes by model, version, kind and subject, with the size in their last alert."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str, str], float] = {}

    def restore(self, alert: AlertRecord) -> None:
        """Takes an alert of an earlier run. Alerts must come in the order in which they were sent."""
        key = (alert.model, alert.version, alert.kind, alert.subject)
        if alert.state == "closed":
            self._told.pop(key, None)
        else:
            self._told[key] = alert.effect

    def observe(self, window: JudgedWindow, finding: Finding) -> AlertRecord | None:
        """The alert about a comparison: opened, worsened (by half again), closed (calm), or none."""
        told = self._told.get((window.model, window.version, finding.kind, finding.subject))
        if told is None:
            state: State | None = "opened" if finding.drifted else None
        elif finding.drifted:
            state = "worsened" if finding.effect > WORSE * told else None
        else:
            state = "closed" if finding.calm else None
        if state is None:
            return None
        alert = alert_of(window, finding, state)
        self.restore(alert)
        return alert


def alert_of(window: JudgedWindow, finding: Finding, state: State) -> AlertRecord:
    """The alert; its id is the same whenever it is computed again."""
    identity = "|".join([window.model, window.version, finding.kind, finding.subject, state, str(window.end)])
    return AlertRecord(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        model=window.model,
        version=window.version,
        kind=finding.kind,
        subject=finding.subject,
        state=state,
        start=window.start,
        end=window.end,
        test=finding.test,
        statistic=finding.statistic,
        threshold=finding.threshold,
        effect=finding.effect,
        rows=window.rows,
        message=_message(window, finding, state),
        reference=finding.reference,
        current=finding.current,
        source="drift",
    )


def _message(window: JudgedWindow, finding: Finding, state: State) -> str:
    happened = {"opened": "has moved", "worsened": "has moved further", "closed": "is back"}[state]
    values = f"{finding.what} {finding.reference:.3g} in training, {finding.current:.3g} now"
    measured = f"{finding.test}, size {finding.effect:.3g}, {window.rows} rows"
    return f"{window.model}: {finding.kind.replace('_', ' ')}, {finding.subject} {happened}: {values} ({measured})"
