"""From records to what the gate judges."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.drift.samples import manifest
from tests.retraining.made import NOW_MS, answered, became

from tidemill import Event, Model, Outcome, Request, Retrain, Training
from tidemill.models.artifact import Manifest
from tidemill.records import PredictionRecord, ResultRecord
from tidemill_retraining.evidence import GRACE_MS, Evidence, Measuring
from tidemill_retraining.history import OpenRun
from tidemill_retraining.stages import Seats, evidence_for, look, measuring

ASKED = Event("asked", {"at": int, "id": str, "size": float, "zone": str}, time="at")
DONE = Event("done", {"at": int, "id": str, "late": int}, time="at", id="id")
LATE = Model(
    "late", ASKED, "at", "id", [Request("size"), Request("zone", str)], Outcome(DONE, "late > 0", "id"), list, training=Training(segments=["zone"])
)  # fmt: skip
HOW = Measuring("probability", "brier", cluster="zone", segments=("zone",))


def version(name: str, **more: Any) -> Manifest:
    """A version with two inputs that are never missing in training."""
    draw = np.random.default_rng(1)
    made = manifest({"size": draw.normal(size=500), "load": draw.normal(size=500)}, draw.beta(2, 5, 500), auc=0.7, auc_error=0.01)
    return msgspec.structs.replace(made, version=name, **more)


def test_pairs_have_both_answers_and_an_outcome() -> None:
    """Whatever the order of the topics; the first of an id counts; strangers are left out."""
    records: list[PredictionRecord | ResultRecord] = [
        answered("a", "v1", 0.5, entities={"zone": "n"}), answered("a", "v2", 1.0, entities={"zone": "n"}), became("a", "v1", 0.5, 1.0),
        answered("b", "v1", 0.5), answered("c", "v2", 0.5), became("c", "v1", 0.5, 1.0), answered("d", "v0", 0.5), became("b", "v1", 0.5, None),
    ]  # fmt: skip
    for seed in range(6):
        evidence = Evidence("late", "v1", "v2", HOW, ["size", "load"])
        for record in random.Random(seed).sample(records, len(records)):
            evidence.answer(record) if isinstance(record, PredictionRecord) else evidence.result(record)
        evidence.answer(answered("a", "v2", 0.0))
        pairs = evidence.pairs()
        assert (pairs.champion.tolist(), pairs.challenger.tolist()) == ([0.25], [0.0])
        assert (list(pairs.clusters), dict(pairs.segments)) == (["n"], {"zone": ["n"]})
        assert (evidence.never, evidence.others) == (1, 2)


def test_a_share_is_dealt() -> None:
    """Requests that either answered, with who did; an outcome of a request before the step says nothing."""
    evidence = Evidence("late", "v1", "v2", Measuring("value", "absolute", clip=2.0), [])
    for record in (answered("a", "v1", 1.0), answered("b", "v2", 1.0)):
        evidence.answer(record)
    for name, version in (("a", "v1"), ("b", "v2"), ("old", "v1")):
        evidence.result(became(name, version, 1.0, 2.0))
    dealt = evidence.dealt(0.25)
    assert (dealt.losses.tolist(), dealt.challenger.tolist(), dealt.share) == ([0.5, 0.5], [False, True], 0.25)


def test_of_several_classes() -> None:
    """A class that a version does not know got nothing from it."""
    evidence = Evidence("late", "v1", "v2", Measuring("probabilities", "brier"), [])
    evidence.answer(answered("a", "v1", 0.6, probabilities={"x": 0.6, "y": 0.4}))
    evidence.answer(answered("a", "v2", 1.0, probabilities={"z": 1.0}))
    evidence.result(became("a", "v1", 0.6, "z"))
    assert evidence.pairs().champion.tolist() == pytest.approx([(0.36 + 0.16 + 1) / 2])
    assert evidence.pairs().challenger.tolist() == [0.0]


def test_requests_that_were_not_answered() -> None:
    """Those since the first answer, and long enough ago; all since a while where there was none."""
    evidence = Evidence("late", "v1", "v2", HOW, ["size", "load"])
    now = NOW_MS + 10 * GRACE_MS
    for i in range(10):
        evidence.answer(answered(str(i), "v1", 0.5, NOW_MS + i * GRACE_MS))
    assert evidence.answered(now, NOW_MS) == (8, 0)
    evidence.answer(answered("5", "v2", 0.5, NOW_MS + 5 * GRACE_MS, inputs=[None, 1.0]))
    assert evidence.answered(now, NOW_MS) == (5, 1)
    assert evidence.missing() == {"size": 1.0, "load": 0.0}


def test_how_answers_are_measured() -> None:
    """By the output, unless declared: errors are clipped at ten mean errors of the champion, segments are those of training."""
    value = version("v1", output="value", metrics={"mae": 0.5})
    assert measuring(LATE, Retrain(), value) == Measuring("value", "absolute", 5.0, None, ("zone",))
    own = measuring(LATE, Retrain(loss="log_loss", cluster="zone", segments=[]), version("v1"))
    assert own == Measuring("probability", "log_loss", 10.0, "zone", ())


def told(step: Any, noise: tuple[float, float], rows: int = 1_500, **run: Any) -> Any:
    """A look at a step: champion and other version answer the truth, with so much noise each."""
    draw = np.random.default_rng(2)
    names = ("v2", "v1") if step == "promoted" else ("v1", "v2")
    seats = Seats(version(names[0]), version(names[1]))
    open_run = OpenRun("late", 1, step, NOW_MS, NOW_MS, (), "v2", "v1", **run)
    evidence = evidence_for(open_run, LATE, Retrain(least=100, segments=[]), seats)
    for i in range(rows):
        truth = draw.uniform()
        said = [float(np.clip(truth + draw.normal(0, size), 0, 1)) for size in noise]
        by = 1 if step == "canary" and draw.uniform() < 0.5 else 0
        for place in {by} if step == "canary" else {0, 1}:
            evidence.answer(answered(str(i), names[place], said[place], NOW_MS + 1))
        evidence.result(became(str(i), names[by], said[by], float(draw.uniform() < truth)))
    return look(open_run, Retrain(least=100, segments=[]), evidence, seats, NOW_MS + 2 * GRACE_MS)


def test_a_look_at_each_step() -> None:
    """A better shadow is promoted; a share of one that is bad, and a champion that is worse than the former one, are rolled back."""
    assert told("shadow", (0.4, 0.02)).verdict == "promote"
    assert told("shadow", (0.02, 0.4)).verdict == "reject"
    assert told("canary", (0.02, 0.02), share=0.5).verdict == "promote"
    assert told("canary", (0.02, 2.0), share=0.5, expected=0.17).verdict == "roll back"
    assert told("promoted", (0.4, 0.02)).verdict == "roll back"
    assert told("promoted", (0.02, 0.4)).verdict == "promote"


def test_versions_of_another_kind() -> None:
    """Their losses are not compared."""
    assert "v2 with a value" in Seats(version("v1"), version("v2", output="value")).incomparable
    assert Seats(version("v1"), version("v2")).incomparable == ""
