"""The state of retrainings as the fold of their topic: a kill is a replay, and what does not fit changes nothing."""

from __future__ import annotations

import copy
import random

import pytest
from tests.retraining.made import DAY_MS, HOUR_MS, NOW_MS, step

from tidemill.retrainings import GateFinding, RetrainingRecord, RetrainingStep
from tidemill_retraining.history import ENDS, History, histories

WAY: tuple[RetrainingStep, ...] = ("begun", "trained", "rehearsed", "shadow", "canary", "promoted", "kept")


def state(history: History) -> dict[str, object]:
    """All of it, to be compared."""
    return copy.deepcopy(vars(history))


def way(*, ended: bool = True) -> list[RetrainingRecord]:
    """A run that goes all the way."""
    loss = GateFinding("loss", "for", "less", champion=0.3)
    evidence: dict[RetrainingStep, list[GateFinding]] = {"canary": [loss]}
    causes = {"begun": ["a1"]}
    return [
        step(name, NOW_MS + i, version="" if i == 0 else "v2", champion="v1", causes=causes.get(name, []), evidence=evidence.get(name, []))
        for i, name in enumerate(WAY if ended else WAY[:-1])
    ]


def test_a_run_goes_its_way() -> None:
    """Each step is the state of the open run, with what later steps need; the last closes it."""
    history = History()
    for record in way():
        history.take(record)
        if record.step != "kept":
            assert history.open is not None
            assert (history.open.step, history.open.since, history.open.champion) == (record.step, record.at, "v1")
    assert history.open is None
    assert (history.seen, history.begun) == ({"a1"}, [NOW_MS])
    assert History.of(way(ended=False)).open.expected == 0.3  # type: ignore[union-attr]


def test_two_runs_are_never_open() -> None:
    """A second beginning and the steps of a run that is not open change nothing."""
    history = History.of(way()[:2])
    before = state(history)
    for record in (
        step("begun", NOW_MS + 9, NOW_MS + 9),
        step("promoted", NOW_MS + 9, NOW_MS + 9),
        step("rejected", 1, 1),
    ):
        history.take(record)
    assert state(history) == before


def test_what_failed_may_begin_again() -> None:
    """After a training that failed its alerts begin another run; after one that was judged they do not."""
    assert History.of([*way()[:1], step("failed", NOW_MS + 5)]).seen == set()
    assert History.of([*way()[:1], step("rejected", NOW_MS + 5)]).seen == {"a1"}


def test_wishes_wait_until_a_run_begins() -> None:
    """The first of several wishes counts; a run, or a refusal, takes it."""
    asked = [step("asked", 1, 1, trigger="hand"), step("asked", 2, 2, trigger="hand")]
    assert History.of(asked).asked == 1
    assert History.of([*asked, step("begun", 3, 3)]).asked is None
    assert History.of([*asked, step("skipped", 3, 3, trigger="hand")]).asked is None


def test_an_interim_judgement_is_no_step() -> None:
    """It says how much was known, and the run stays where it is."""
    waiting = step("waiting", NOW_MS + 9, evidence=[GateFinding("loss", "open", "?", rows=120)])
    history = History.of([*way()[:4], waiting])
    assert history.open is not None
    assert (history.open.step, history.open.told) == ("shadow", 120)


def test_a_clock_that_goes_back_gives_no_more_runs() -> None:
    """Runs that seem to lie ahead count as of today."""
    history = History.of([step("begun", NOW_MS), step("rejected", NOW_MS)])
    assert history.begun_within(NOW_MS + HOUR_MS, DAY_MS) == 1
    assert history.begun_within(NOW_MS + 2 * DAY_MS, DAY_MS) == 0
    assert history.begun_within(NOW_MS - 30 * DAY_MS, DAY_MS) == 1


STEPS: tuple[RetrainingStep, ...] = ("asked", "skipped", *WAY, *ENDS, "waiting")


@pytest.mark.parametrize("seed", range(40))
def test_a_kill_is_a_replay(seed: int) -> None:
    """After any records of two models the state of each is that of a process which reads them all anew, and at most one run of it is open."""
    draw = random.Random(seed)
    each, records = {"late": History(), "other": History()}, list[RetrainingRecord]()
    for at in range(120):
        name, model = draw.choice(STEPS), draw.choice(["late", "other"])
        history = each[model]
        run = history.open.run if history.open and draw.random() < 0.8 else at
        record = step(name, at, run, model, causes=[f"c{at}"] if name == "begun" else [], ends={"results": [at]})
        before = history.open
        history.take(record)
        records.append(record)
        assert state(histories(records)[model]) == state(history)
        if before is not None and history.open is not None:
            assert history.open.run == before.run
