"""What the demo says at its end: three ways to answer on the same flights, none of which knows the future, and what the loop did."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import demo_calendar
import demo_loop
import msgspec
import numpy as np
import pytest
from demo_calendar import Calendar, Compared, Source, Taught, begin_ms, by_calendar, compare, known_before, without_windows
from demo_loop import Answered, counted, months_of, placed, quality, told
from demo_report import WAYS, Facts, closing, facts_of
from demo_watch import Watcher
from rich.console import Console
from tests.retraining.made import alert, answered, became, step

from tidemill.declarations.project import Project, load_project
from tidemill.models.artifact import ModelInput
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import RESULTS_SCHEMA, predictions_table, results_rows
from tidemill.records import encode

JUNE, JULY = (int(datetime(2013, month, 1, tzinfo=UTC).timestamp() * 1000) for month in (6, 7))
DAY_MS = 86_400_000
RUN = [
    step("begun", JUNE + 13 * DAY_MS, JUNE, trigger="drift"), step("trained", JUNE + 13 * DAY_MS, JUNE), step("shadow", JUNE + 14 * DAY_MS, JUNE),
    step("promoted", JULY + DAY_MS, JUNE), step("rolled back", JULY + 3 * DAY_MS, JUNE),
]  # fmt: skip


@pytest.fixture(scope="module")
def project() -> Project:
    """The project as a service loads it."""
    return load_project("examples/flights")


def asked(rows: int = 400) -> Answered:
    """Requests of June and July, half of each, a third of which end late, as the first input says; known two days later."""
    draw = np.random.default_rng(4)
    time_ms = np.sort(np.concatenate([draw.integers(JUNE, JULY, rows // 2), draw.integers(JULY, JULY + 30 * DAY_MS, rows // 2)]))
    outcome = (draw.random(rows) < 1 / 3).astype(np.float64)
    matrix = np.column_stack([outcome + draw.normal(0, 1, rows), np.full(rows, np.nan)]).astype(np.float32)
    return Answered(matrix, time_ms, time_ms + 2 * DAY_MS, outcome, np.clip(0.3 * outcome + 0.35 * draw.random(rows), 0, 1))


def test_quality_is_order_and_frequency() -> None:
    """Answers that separate have an AUC of 1, those that say the frequency of all have a half; the latter alone are calibrated."""
    outcome = np.tile([1.0, 0.0, 0.0, 0.0], 100)
    sharp, flat = quality(outcome, 0.5 + 0.4 * outcome), quality(outcome, np.full(400, 0.25))
    assert (sharp.auc, flat.auc) == (1.0, 0.5)
    assert flat.calibration_error == pytest.approx(0.0)
    assert sharp.calibration_error == pytest.approx(0.75 * 0.5 + 0.25 * 0.1, abs=0.02)  # one bin has both


def test_a_month_begins_with_what_was_known() -> None:
    """A request of the month before whose outcome came in the month teaches nothing yet, nor does the first of the month."""
    times = np.array([JULY - 3 * DAY_MS, JULY - DAY_MS, JULY])
    rows = asked(3)._replace(time_ms=times, known_ms=times + 2 * DAY_MS)
    assert months_of(times).astype(str).tolist() == ["2013-06", "2013-06", "2013-07"]
    assert (begin_ms("2013-06"), begin_ms("2013-07")) == (JUNE, JULY)
    assert known_before(rows, "2013-07").tolist() == [True, False, False]


def test_categories_are_those_of_the_first_version() -> None:
    """Each version numbers its categories by itself; one that the first does not know has no number."""
    own, first = ["AA", "B6", "UA"], ["UA", "AA"]
    assert np.array_equal(placed(np.array([0, 1, 2, np.nan], np.float32), own, first), [1, np.nan, 0, np.nan], equal_nan=True)
    assert np.array_equal(placed(np.array([np.nan], np.float32), [], first), [np.nan], equal_nan=True)


class Mean:
    """Says the mean of what it learnt."""

    def fit(self, matrix: Any, labels: Any) -> Mean:
        """Keeps what it is given."""
        self.learnt, self.mean = matrix, labels.mean()
        return self

    def predict_proba(self, matrix: Any) -> Any:
        """The mean, to all."""
        return np.full((len(matrix), 2), self.mean)


SOURCE = Source("project", "store", "late", "v1")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """What the stores have: a training set of 50 rows, and these."""
    rows = asked()
    before = demo_loop.Examples(rows.matrix[:50] * 2, rows.outcome[:50], ["x", "dest_arrivals__mean"])
    monkeypatch.setattr(demo_calendar, "examples", lambda *_: before)
    monkeypatch.setattr(demo_calendar, "answered", lambda *_: rows)
    models = {"late": SimpleNamespace(pipeline=Mean)}
    monkeypatch.setattr(demo_calendar, "load_project", lambda _: SimpleNamespace(models=models))
    return rows


@pytest.mark.parametrize("month", ["2013-06", "2013-07"])
def test_the_calendar_learns_what_the_month_before_knew(rows: Answered, month: str) -> None:
    """It is fitted on the first set and on what was known when the month began."""
    made, known = by_calendar(SOURCE, month), int((rows.known_ms < JULY).sum()) if month == "2013-07" else 0
    assert len(made.pipeline.learnt) == 50 + made.rows == 50 + known
    assert made.answers(rows.matrix[:3]) == pytest.approx([made.pipeline.mean] * 3)
    assert without_windows(SOURCE).pipeline.learnt.shape == (50, 1)


@pytest.mark.parametrize("lacking", [0, 1])
def test_who_learnt_too_early_learns_again(rows: Answered, monkeypatch: pytest.MonkeyPatch, lacking: int) -> None:
    """A model that was fitted before all that it should know was written is fitted then; each answers its own month, and the first version all."""
    months, begun, whole = ["2013-06", "2013-07"], list[str](), by_calendar(SOURCE, "2013-07")

    def again(source: Source, month: str) -> Taught:
        begun.append(month)
        return whole

    class First:
        """The first version."""

        def predict_rows(self, matrix: Any) -> Any:
            """A quarter, to all."""
            return np.full(len(matrix), 0.25)

    monkeypatch.setattr(demo_calendar, "by_calendar", again)
    monkeypatch.setattr(demo_calendar, "stored_artifact", lambda *_: None)
    monkeypatch.setattr(demo_calendar, "load_engine", lambda _: First())
    found = compare(SOURCE, months, [without_windows(SOURCE), whole._replace(rows=whole.rows - lacking)])
    assert begun == ["2013-07"] * lacking
    assert (set(found.frozen), set(found.calendar[0])) == ({0.25}, {0.25})
    assert [len(one) for one in (found.plain, found.frozen, *found.calendar)] == [400, 400, 200, 200]
    assert found.calendar[1] == pytest.approx(np.full(200, whole.pipeline.mean))


def test_months_are_fitted_beside_the_replay() -> None:
    """One begins when it is some days old; at the end those that are left. What fails there is raised here."""
    with Calendar(Source("no project", "store", "late", "v1"), ["2013-06", "2013-07", "2013-08"]) as calendar:
        counts = []
        for days in (0, 11, 12, 13):
            calendar.passed(JULY + days * DAY_MS)
            counts.append(len(calendar._taught))
        calendar.hurry()
        with pytest.raises(OSError, match="store"):
            calendar.all()
        assert [*counts, len(calendar._taught)] == [1, 1, 2, 2, 3]


def test_what_was_answered_is_read_from_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Project) -> None:
    """Whichever version answered, in the order of time: its inputs as the first version numbers them; what has no outcome, or is of another model, is left out, and so is what is not in the log yet."""
    lists = {"v1": ["JFK", "EWR"], "v2": ["EWR", "JFK", "LGA"]}
    inputs = {name: [ModelInput("temp", "number"), ModelInput("origin", "category", texts)] for name, texts in lists.items()}
    monkeypatch.setattr(
        demo_loop, "stored_artifact", lambda root, model, name: SimpleNamespace(manifest=SimpleNamespace(inputs=inputs[name]))
    )
    given = {
        "a": ("v2", [1.0, 0.0]),
        "b": ("v1", [2.0, 0.0]),
        "c": ("v2", [None, 2.0]),
        "d": ("v1", [4.0, 1.0]),
        "never": ("v1", [5.0, 1.0]),
    }
    answers = [
        encode(answered(name, version, 0.25, inputs=vector, at=1_000 - place))
        for place, (name, (version, vector)) in enumerate(given.items())
    ]
    outcomes = [became(name, version, 0.25, None if name == "never" else float(name == "a")) for name, (version, _) in given.items()]
    results = [msgspec.structs.replace(one, seq=seq, time=1_000 - seq, known=2_000) for seq, one in enumerate(outcomes)]
    results.append(msgspec.structs.replace(results[0], seq=9, model="other"))
    results.append(msgspec.structs.replace(results[0], seq=10, prediction="not logged yet"))
    store = OfflineStore(tmp_path)
    table = predictions_table(project)
    writer = store.topic_table(table)
    writer.open()
    records = [SimpleNamespace(offset=at, key=b"k", value=value, timestamp=0, headers=()) for at, value in enumerate(answers)]
    writer.append(table.rows(0, records), {(table.topic, 0): (0, len(records))})
    log = store.counted_table("results", RESULTS_SCHEMA)
    log.append(results_rows(results), {})
    found = demo_loop.answered(str(tmp_path), "late", "v1")
    assert np.array_equal(found.matrix, np.array([[4, 1], [np.nan, np.nan], [2, 0], [1, 1]]), equal_nan=True)
    assert found.time_ms.tolist() == [997, 998, 999, 1_000]
    assert (found.outcome.tolist(), set(found.output), set(found.known_ms)) == ([0.0, 0.0, 0.0, 1.0], {0.25}, {2_000})


def facts(steps: list[Any]) -> Facts:
    """Of two months, in which the calendar is perfect from July on."""
    rows = asked()
    july = rows.time_ms >= JULY
    noise = np.random.default_rng(1).random(len(rows.outcome))
    drifted = [alert("a1", "feature_drift", subject="temp"), alert("a2", "feature_drift", "closed")]
    made = facts_of(Compared(rows, noise, noise, [noise[~july], rows.outcome[july]]), steps, drifted)
    return Facts(
        events=1_000, predictions=400, **made, audit={"checked": 5, "mismatched": 0}, replay={"checked": 3, "equal": 3},
        verify={"values": 4, "labels": 2, "rows": 1, "differ": 0}, dead_letters=0, seconds=12.3, training_seconds=4.5,
    )  # fmt: skip


def test_every_way_answers_the_same_flights() -> None:
    """Until the first month ends the calendar is the frozen model; from then on it is what was trained then. The loop is what was served."""
    found = facts(RUN)
    june, july = found.months
    assert (june["month"], july["month"], june["flights"] + july["flights"]) == ("2013-06", "2013-07", 400)
    assert june["auc"]["frozen"] == june["auc"]["monthly"] == june["auc"]["without windows"]
    assert (july["auc"]["monthly"], july["auc"]["frozen"] < 0.7) == (1.0, True)
    assert found.ways["loop"]["auc"] == found.auc > found.ways["frozen"]["auc"]
    assert found.ways["monthly"]["retrainings"] == 1
    assert found.ways["loop"]["retrainings"] == found.ways["loop"]["promotions"] == found.ways["loop"]["rollbacks"] == 1
    assert found.proved


def test_what_the_loop_did() -> None:
    """Each month has the days of its own steps."""
    assert told(RUN, "2013-06") == ["trained 14 (drift)"]
    assert told(RUN, "2013-07") == ["promoted 2", "rolled back 4"]
    assert told(RUN, "2013-08") == []
    assert counted([]) == {"retrainings": 0, "promotions": 0, "rollbacks": 0}


def test_the_table(tmp_path: Path) -> None:
    """It names every way, the months, and what the loop did."""
    said = io.StringIO()
    facts(RUN).write(tmp_path / "report.json")
    closing(facts(RUN), tmp_path / "report.json", Console(file=said, width=160))
    text = said.getvalue()
    assert all(
        name in text for name in (*WAYS, "June to July 2013", "calibration error", "trained 14 (drift)", "promoted 2, rolled back 4")
    )
    assert "time stood still for 4 s" in text
    assert "12 s in all" in text


def test_the_replay_waits_for_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a run's begin until its version is rehearsed; interim words change nothing."""
    watcher = Watcher.__new__(Watcher)
    watcher.steps = []
    seen = []
    for name in ("asked", "begun", "waiting", "trained", "rehearsed", "skipped", "shadow", "rejected", "begun", "failed"):
        watcher._stepped(step(name, JUNE))
        seen.append(watcher.trains)
    assert seen == [False, True, True, True, True, True, False, False, True, False]
    asyncio.run(watcher.trained())


def test_the_project_wants_the_loop(project: Project) -> None:
    """The flights are retrained on alarms."""
    assert project.models["flight_late"].retrain is not None
