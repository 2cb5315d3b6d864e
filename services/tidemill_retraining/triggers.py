"""What begins a run. Pure: from the state, what is declared, and what is known now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tidemill.declarations.retrain import Retrain
from tidemill.records import AlertRecord
from tidemill.retrainings import RetrainingTrigger
from tidemill.streams.alert_board import standing
from tidemill_retraining.history import DAY_MS, History

_KINDS: dict[str, RetrainingTrigger] = {
    "feature_drift": "drift", "prediction_drift": "drift", "performance": "performance", "data_quality": "skew", "skew": "skew",
}  # fmt: skip
_ORDER: tuple[RetrainingTrigger, ...] = ("performance", "drift", "skew")


class Known(NamedTuple):
    """What is known now of a model. `champion`: the version that answers; `created`: when it was made, in ms; `alerts`: those that are open; `rows`: new outcomes since
    the last run; `changed`: what is not as it was when the champion was made, in words; `code`: a name of what is now."""

    champion: str
    created: int
    alerts: list[AlertRecord]
    rows: int = 0
    changed: str = ""
    code: str = ""


class WantedRun(NamedTuple):
    """A run that is wanted. `held`: why it does not begin now; empty: it does."""

    trigger: RetrainingTrigger
    reason: str
    causes: list[str]
    held: str = ""


def open_alerts(alerts: Iterable[AlertRecord]) -> list[AlertRecord]:
    """The newest alert of each episode of drift detection that is open."""
    return [alert for alert in standing(alerts) if alert.source == "drift"]


def wanted(model: str, policy: Retrain, history: History, known: Known, now: int, trains: str = "") -> WantedRun | None:
    """The run that a model without an open one wants; None: none. `trains`: another model that is in training now. What is asked for by hand comes first, and is not held
    back: it waits for its turn."""
    if history.asked is not None:
        return WantedRun("hand", "asked for by hand", [f"hand:{history.asked}"])
    beside = f"{trains} is in training" if trains else ""
    found = _alarmed(model, policy, history, known) or _otherwise(model, policy, history, known, now)
    return found and found._replace(held=beside or _limits(policy, history, now))


def _alarmed(model: str, policy: Retrain, history: History, known: Known) -> WantedRun | None:
    """All open alerts about the champion together, those that began a run before left out: a storm of alarms is one run."""
    mine = [
        alert
        for alert in known.alerts
        if (alert.model, alert.version) == (model, known.champion) and _KINDS.get(alert.kind) in policy.on and alert.id not in history.seen
    ]
    for trigger in _ORDER:
        if of_kind := [alert for alert in mine if _KINDS[alert.kind] == trigger]:
            more = f"; and {len(mine) - 1:,} more alerts" if len(mine) > 1 else ""
            return WantedRun(trigger, of_kind[-1].message + more, [alert.id for alert in mine])
    return None


def _otherwise(model: str, policy: Retrain, history: History, known: Known, now: int) -> WantedRun | None:
    code = f"code:{model}:{known.champion}:{known.code}"
    if "code" in policy.on and known.changed and code not in history.seen:
        return WantedRun("code", known.changed, [code])
    if policy.rows is not None and known.rows >= policy.rows:
        return WantedRun("data", f"{known.rows:,} new outcomes; {policy.rows:,} begin a run", [])
    last = history.last_begun()
    since = known.created if last is None else last
    if policy.every_ms is not None and now - since >= policy.every_ms:
        return WantedRun("schedule", f"the last run began {(now - since) / DAY_MS:.1f} days ago; every {policy.every}", [])
    return None


def _limits(policy: Retrain, history: History, now: int) -> str:
    if history.begun_within(now, DAY_MS) >= policy.at_most_a_day:
        return f"{policy.at_most_a_day} runs began within 24 hours, which is the most"
    if history.rests(now, policy.rest_ms):
        return f"the last run ended less than {policy.rest} ago"
    return ""
