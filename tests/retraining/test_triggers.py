"""What begins a run: alarms, outcomes, time, code and hands; and what holds it back."""

from __future__ import annotations

import msgspec
from tests.retraining.made import DAY_MS, HOUR_MS, NOW_MS, alert, step

from tidemill import Retrain
from tidemill.retrainings import RetrainingRecord
from tidemill_retraining.history import History
from tidemill_retraining.triggers import Known, WantedRun, open_alerts, wanted

POLICY = Retrain(rest="6h", at_most_a_day=2)


def known(*alerts: object, **more: object) -> Known:
    """A champion made ten days ago."""
    return Known("v1", NOW_MS - 10 * DAY_MS, list(alerts), **more)  # type: ignore[arg-type]


def want(what: Known, records: list[RetrainingRecord] | None = None, policy: Retrain = POLICY, trains: str = "") -> WantedRun | None:
    """What is wanted after some records."""
    return wanted("late", policy, History.of(records or []), what, NOW_MS, trains)


def run(at: int, *causes: str) -> list[RetrainingRecord]:
    """A run that was rejected."""
    return [step("begun", at, at, causes=list(causes)), step("rejected", at, at)]


def test_nothing_wants_nothing() -> None:
    """A model without any trigger is left alone."""
    assert want(known()) is None


def test_episodes_that_are_open() -> None:
    """The newest alert of each; what is closed, or the audit's, is none."""
    worse, closed = alert("b", state="worsened"), alert("d", state="closed", subject="calibration")
    audit = msgspec.structs.replace(alert("e", subject="zones"), source="audit")
    assert open_alerts([alert("a"), worse, alert("c", subject="calibration"), closed, audit]) == [worse]


def test_a_storm_is_one_run() -> None:
    """All open alerts about the champion are its causes; performance is named first; those of other versions and kinds are not."""
    storm = [alert(f"d{i}", "feature_drift", subject=f"f{i}") for i in range(50)]
    found = want(
        known(*storm, alert("p"), alert("old", version="v0"), alert("q", "data_quality")), policy=Retrain(on=["drift", "performance"])
    )
    assert found is not None
    assert (found.trigger, found.held, len(found.causes)) == ("performance", "", 51)
    assert found.reason == "auc moved; and 50 more alerts"
    skewed = want(known(alert("q", "data_quality")))
    assert skewed is not None
    assert skewed.trigger == "skew"


def test_an_alert_begins_one_run() -> None:
    """A drift that never ends does not begin the next run; one that grew does, once there was rest."""
    assert want(known(alert("a")), run(NOW_MS - DAY_MS, "a")) is None
    found = want(known(alert("b", state="worsened")), run(NOW_MS - DAY_MS, "a"))
    assert found is not None
    assert (found.causes, found.held) == (["b"], "")


def test_runs_are_held_back() -> None:
    """By rest, by the number in a day, by another model's training; each says so."""
    resting = want(known(alert("b")), run(NOW_MS - HOUR_MS))
    assert resting is not None
    assert resting.held == "the last run ended less than 6h ago"
    long_ms = NOW_MS - 3 * DAY_MS  # a run that began long ago, and ended just now
    resting = want(known(alert("b")), [step("begun", long_ms, long_ms), step("rejected", NOW_MS - HOUR_MS, long_ms)])
    assert resting is not None
    assert resting.held == "the last run ended less than 6h ago"
    assert want(known(alert("b")), [step("begun", long_ms, long_ms), step("rejected", NOW_MS - 6 * HOUR_MS, long_ms)]).held == ""  # type: ignore[union-attr]
    many = want(known(alert("b")), [*run(NOW_MS - 20 * HOUR_MS), *run(NOW_MS - 7 * HOUR_MS)])
    assert many is not None
    assert many.held == "2 runs began within 24 hours, which is the most"
    beside = want(known(alert("b")), trains="other")
    assert beside is not None
    assert beside.held == "other is in training"


def test_hands_come_first() -> None:
    """What is asked for by hand needs no rest, and is not refused while another model is in training: it waits."""
    found = want(known(alert("b")), [*run(NOW_MS - HOUR_MS), step("asked", 7, 7, trigger="hand")], trains="other")
    assert found == WantedRun("hand", "asked for by hand", ["hand:7"])


def test_outcomes_time_and_code() -> None:
    """New outcomes, the time since the last run or since the champion was made, and what changed since; the same code once."""
    policy = Retrain(on=["code"], rows=1_000, every="7d", rest="1h")
    assert want(known(rows=999), run(NOW_MS - DAY_MS), policy) is None
    data, schedule = want(known(rows=1_000), run(NOW_MS - DAY_MS), policy), want(known(), None, policy)
    assert data is not None
    assert (data.trigger, data.reason) == ("data", "1,000 new outcomes; 1,000 begin a run")
    assert schedule is not None
    assert (schedule.trigger, "10.0 days ago" in schedule.reason) == ("schedule", True)
    changed = known(changed="changed since v1 was made: project.py", code="abc")
    code = want(changed, run(NOW_MS - DAY_MS), policy)
    assert code is not None
    assert (code.trigger, code.causes) == ("code", ["code:late:v1:abc"])
    assert want(changed, run(NOW_MS - DAY_MS, "code:late:v1:abc"), policy) is None
    assert want(known(), run(NOW_MS + DAY_MS), policy) is None
