"""Episodes: an operator hears when something begins, when it gets clearly worse, and when it is over; not every window.

Which episodes are open follows from the alerts sent so far and from nothing else. So a restart reads them from the topic of alerts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from tidemill.records import AlertRecord
from tidemill.streams.alert_board import watched_about
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
    """Open episodes by model, version, kind and subject, with their last alert."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], AlertRecord] = {}

    def restore(self, alert: AlertRecord) -> None:
        """Takes an alert of an earlier run. Alerts must come in the order in which they were sent."""
        about = watched_about((alert.model, alert.version), alert.kind, alert.subject, alert.test)
        if alert.state == "closed":
            self._told.pop(about, None)
        else:
            self._told[about] = alert

    def observe(self, window: JudgedWindow, finding: Finding) -> AlertRecord | None:
        """The alert about a comparison: opened, worsened (by half again), closed (calm), or none."""
        told = self._told.get(watched_about((window.model, window.version), finding.kind, finding.subject, finding.test))
        if told is None:
            state: State | None = "opened" if finding.drifted else None
        elif finding.drifted:
            state = "worsened" if finding.effect > WORSE * told.effect else None
        else:
            state = "closed" if finding.calm else None
        if state is None:
            return None
        alert = alert_of(window, finding, state)
        self.restore(alert)
        return alert

    def supersede(self, gone: Callable[[tuple[str, str]], str]) -> list[AlertRecord]:
        """Closes the episodes of versions that serve no more. `gone`: why a version is not judged any more; empty if it is."""
        ended = [(alert, why) for alert in self._told.values() if (why := gone((alert.model, alert.version)))]
        closed = [_superseded(alert, why) for alert, why in ended]
        for alert in closed:
            self.restore(alert)
        return closed


def alert_of(window: JudgedWindow, finding: Finding, state: State) -> AlertRecord:
    """The alert; its id is the same whenever it is computed again."""
    return AlertRecord(
        id=_id(*watched_about((window.model, window.version), finding.kind, finding.subject, finding.test), state, str(window.end)),
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


def _superseded(told: AlertRecord, why: str) -> AlertRecord:
    message = f"{told.model}: {told.kind.replace('_', ' ')}, {told.subject} of {told.version} is not watched any more: {why}"
    return msgspec.structs.replace(told, id=_id(told.id, "superseded"), state="closed", reason="superseded", message=message)


def _id(*identity: str) -> str:
    return hashlib.sha256("|".join(part for part in identity if part).encode()).hexdigest()[:16]


def _message(window: JudgedWindow, finding: Finding, state: State) -> str:
    happened = {"opened": "has moved", "worsened": "has moved further", "closed": "is back"}[state]
    values = f"{finding.what} {finding.reference:.3g} in {finding.of}, {finding.current:.3g} now{finding.told}"
    measured = f"{finding.test}, size {finding.effect:.3g}, {window.rows} rows"
    return f"{window.model}: {finding.kind.replace('_', ' ')}, {finding.subject} {happened}: {values} ({measured})"
