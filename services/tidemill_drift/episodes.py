"""Episodes: an operator hears when something begins, when it gets clearly worse, and when it is over; not every window."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tidemill.records import AlertRecord
from tidemill_drift.compare import Finding

CALM_WINDOWS = 2
WORSE = 1.5
State = Literal["opened", "worsened", "closed"]


class Window(NamedTuple):
    """Which stretch of event time of which model version was compared, and how many rows it had."""

    model: str
    version: str
    start: int
    end: int
    rows: int


@dataclass
class _Episode:
    told_effect: float
    calm: int = 0


class Episodes:
    """Open episodes by model, version, kind and subject."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str, str], _Episode] = {}

    def restore(self, alert: AlertRecord) -> None:
        """Takes up what an earlier run told, in the order it was told."""
        key = (alert.model, alert.version, alert.kind, alert.subject)
        if alert.state == "closed":
            self._open.pop(key, None)
        else:
            self._open[key] = _Episode(alert.effect)

    def observe(self, window: Window, finding: Finding) -> AlertRecord | None:
        """What to tell about a comparison: opened, worsened (by half again), closed (after two calm windows), or nothing."""
        key = (window.model, window.version, finding.kind, finding.subject)
        episode = self._open.get(key)
        if finding.drifted:
            if episode is None:
                self._open[key] = _Episode(finding.effect)
                return alert_of(window, finding, "opened")
            episode.calm = 0
            if finding.effect > WORSE * episode.told_effect:
                episode.told_effect = finding.effect
                return alert_of(window, finding, "worsened")
        elif episode is not None:
            episode.calm += 1
            if episode.calm >= CALM_WINDOWS:
                del self._open[key]
                return alert_of(window, finding, "closed")
        return None


def alert_of(window: Window, finding: Finding, state: State) -> AlertRecord:
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
    )


def _message(window: Window, finding: Finding, state: State) -> str:
    shown = (
        "" if finding.reference is None or finding.current is None else f": {finding.reference:.4g} in training, {finding.current:.4g} now"
    )
    what = {"opened": "has moved", "worsened": "has moved further", "closed": "is back"}[state]
    return f"{window.model}: {finding.kind.replace('_', ' ')}, {finding.subject} {what}{shown} ({finding.test}, size {finding.effect:.3g}, {window.rows} rows)"
