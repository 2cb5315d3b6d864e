"""Seeded histories: alarms in storms, wishes, runs that end somehow, a clock that jumps, and kills; what must hold of every one of them."""

from __future__ import annotations

import random

import pytest
from tests.retraining.made import DAY_MS, HOUR_MS, NOW_MS, alert, step

from tidemill import Retrain
from tidemill.records import AlertRecord
from tidemill.retrainings import RetrainingRecord, RetrainingStep
from tidemill_retraining.history import DAY_MS as SPAN_MS
from tidemill_retraining.history import ENDS, History, histories
from tidemill_retraining.triggers import Known, WantedRun, open_alerts, wanted
from tidemill_retraining.turns import Turn

AFTER: dict[RetrainingStep, list[RetrainingStep]] = {"begun": ["trained"] * 4, "trained": ["shadow"] * 4, "shadow": ["waiting"] * 9}
POLICIES = {"late": Retrain(rest="3h", at_most_a_day=2, every="9d"), "other": Retrain(rest="1h", at_most_a_day=1, rows=50)}


class _Loops:
    """The decisions of the loops of two models, without what they do."""

    def __init__(self, seed: int) -> None:
        self.draw, self.now, self.records, self.alerts = random.Random(seed), NOW_MS, list[RetrainingRecord](), list[AlertRecord]()
        self.of, self.turn = {name: History() for name in POLICIES}, Turn()

    def write(self, record: RetrainingRecord) -> None:
        """A record of any process."""
        self.records.append(record)
        self.of[record.model].take(record)

    def kill(self) -> None:
        """All that is kept is the topic; whoever trains takes the turn again."""
        self.of, self.turn = {name: histories(self.records).get(name, History()) for name in POLICIES}, Turn()
        for name, history in self.of.items():
            if history.open is not None and history.open.step in ("begun", "trained"):
                self.turn.take(name)

    def world(self) -> None:
        """Something happens."""
        draw = self.draw
        self.now += draw.choice([0, 60_000, HOUR_MS, 5 * HOUR_MS, *([-3 * DAY_MS, 40 * DAY_MS] if draw.random() < 0.02 else [])])
        for _ in range(draw.choice([0, 0, 1, 30])):
            self.alerts.append(
                alert(f"a{len(self.alerts)}", "performance", draw.choice(["opened", "worsened", "closed"]), subject=draw.choice("xyz"))
            )
        if draw.random() < 0.05:
            self.write(step("asked", self.now, self.now, draw.choice(list(POLICIES)), trigger="hand"))

    def look(self, model: str) -> None:
        """One look of a model's loop: an open run goes on somehow, else one may begin."""
        policy, history = POLICIES[model], self.of[model]
        if (run := history.open) is not None:
            name = self.draw.choice(["waiting", *AFTER[run.step], *ENDS])
            if name != "waiting":
                self.write(step(name, self.now, run.run, run.model))
            if name not in ("waiting", "trained"):
                self.turn.leave(model)
            return
        known = Known("v1", NOW_MS - DAY_MS, open_alerts(self.alerts), rows=self.draw.randrange(80))
        found = wanted(model, policy, history, known, self.now, self.turn.other(model))
        if found is not None and found.held:
            if found.trigger not in history.held:
                self.write(step("skipped", self.now, self.now, model, trigger=found.trigger))
        elif found is not None and self.turn.take(model):
            self.begin(model, policy, found)

    def begin(self, model: str, policy: Retrain, found: WantedRun) -> None:
        """A run begins: neither beside another training, nor beyond the budget, nor too soon."""
        assert self.of[model].open is None
        assert not [run for name in POLICIES if (run := self.of[name].open) is not None and run.step in ("begun", "trained")]
        begun = self.of[model].begun
        if found.trigger != "hand":
            assert sum(self.now - at < SPAN_MS for at in begun) < policy.at_most_a_day
            ended = [record.at for record in self.records if record.model == model and record.step in ENDS]
            assert all(self.now - at >= policy.rest_ms for at in ended[-1:])
        self.write(step("begun", self.now, self.of[model].free(self.now), model, trigger=found.trigger, causes=found.causes))


@pytest.mark.parametrize("seed", range(5))
def test_a_storm_is_survived(seed: int) -> None:
    """No run begins beside another training, beyond the budget or too soon; runs of two models are open at once; an alert begins another run only after a failure; a storm writes
    few records; a kill changes nothing."""
    loop, both = _Loops(seed), 0
    for _ in range(400):
        loop.world()
        if loop.draw.random() < 0.1:
            before = [vars(history) for history in loop.of.values()]
            loop.kill()
            assert [vars(history) for history in loop.of.values()] == before
        loop.look(loop.draw.choice(list(POLICIES)))
        both += all(history.open for history in loop.of.values())
    assert both
    failed = {(record.model, record.run) for record in loop.records if record.step == "failed"}
    causes = [
        cause for record in loop.records if record.step == "begun" and (record.model, record.run) not in failed for cause in record.causes
    ]
    assert len(causes) == len(set(causes))
    counts = {name: sum(record.step == name for record in loop.records) for name in ("begun", "skipped", "asked")}
    assert counts["begun"] > 5
    assert counts["skipped"] <= 8 * (counts["begun"] + 1)
    assert len(loop.alerts) > 500
