"""Judging a challenger: what promotes it, what keeps the champion, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.gate.guards import answers, calibration_error, skew
from tidemill.gate.judge import after, before, during
from tidemill.gate.losses import of_classes, of_probabilities, of_values
from tidemill.gate.rows import Dealt, PairedLosses
from tidemill.gate.rule import Rule
from tidemill.retrainings import GateFinding

RULE = Rule(budget=0.05, least=200, most=5_000)


def pairs(rows: int, better: float, *, noise: float = 0.1, **more: object) -> PairedLosses:
    """Losses around 0.3, the challenger's smaller by so much on average."""
    draw = np.random.default_rng(rows)
    champion = np.clip(draw.normal(0.3, noise, rows), 0, 1)
    return PairedLosses(champion, np.clip(champion - better + draw.normal(0, noise, rows), 0, 1), **more)  # type: ignore[arg-type]


def probable(rows: int, off: float) -> PairedLosses:
    """A challenger that separates better, and whose probabilities are off by so much."""
    draw = np.random.default_rng(7)
    truth = draw.uniform(0, 1, rows)
    outcomes = (draw.random(rows) < truth).astype(np.float64)
    champion, challenger = np.full(rows, 0.5), np.clip(truth + off, 0, 1)
    return PairedLosses(
        of_probabilities("brier", outcomes, champion),
        of_probabilities("brier", outcomes, challenger),
        outcomes=outcomes,
        champion_outputs=champion,
        challenger_outputs=challenger,
    )


def test_a_better_one_is_promoted() -> None:
    """Evidence, enough outcomes and nothing against it; the finding has the figures and says them."""
    decision = before(pairs(1_000, 0.05), RULE)
    assert decision.verdict == "promote"
    (loss,) = decision.findings
    assert loss.verdict == "for"
    assert loss.rows == 1_000
    assert loss.low is not None
    assert 0 < loss.low < 0.06
    assert "on 1,000 outcomes" in decision.reason


def test_nothing_is_promoted_on_missing_evidence() -> None:
    """Without outcomes, with few, and where requests were not judged yet, it waits and says for what."""
    assert before(pairs(0, 0.0), RULE).reason == "no request that both answered has an outcome yet"
    few = before(pairs(150, 0.1), RULE)
    assert (few.verdict, few.reason) == ("wait", "150 of 200 outcomes")
    waiting = before(pairs(1_000, 0.05), RULE, [answers(50, 50, RULE)])
    assert (waiting.verdict, "judged from 200 on" in waiting.reason) == ("wait", True)


def test_a_tie_keeps_the_champion() -> None:
    """The same answers wait, and are rejected at the horizon; never promoted."""
    same = pairs(4_000, 0.0, noise=0.0)
    assert before(same, RULE).verdict == "wait"
    decision = before(pairs(5_000, 0.0, noise=0.0), RULE)
    assert decision.verdict == "reject"
    assert "not shown to be better on 5,000 outcomes, so the champion stays" in decision.reason


def test_a_worse_one_is_rejected_early() -> None:
    """Evidence against it needs no horizon."""
    decision = before(pairs(400, -0.1), RULE)
    assert (decision.verdict, decision.findings[0].verdict) == ("reject", "against")


def test_one_subject_is_one_row() -> None:
    """A thousand rows of ten subjects are ten outcomes."""
    decision = before(pairs(1_000, 0.1, clusters=[str(i % 10) for i in range(1_000)]), RULE)
    assert (decision.verdict, decision.reason) == ("wait", "10 of 200 outcomes")


def test_worse_on_a_segment_is_rejected() -> None:
    """Better on the whole and worse on one carrier: the carrier is named."""
    fields = ["AA" if i % 4 else "UA" for i in range(2_000)]
    found = pairs(2_000, 0.1, segments={"carrier": fields})
    harmed = np.where(np.array(fields) == "UA", np.clip(found.champion + 0.1, 0, 1), found.challenger)
    decision = before(found._replace(challenger=harmed), RULE)
    assert decision.verdict == "reject"
    assert "worse on carrier=UA" in decision.reason


def test_better_on_one_segment_alone_is_rejected() -> None:
    """A gain on one value that hides a small loss on all others together."""
    draw = np.random.default_rng(8)
    fields = ["big", *(f"s{i}" for i in range(40))]
    texts = [fields[0] if i % 2 else fields[1 + i // 2 % 40] for i in range(4_000)]
    found = pairs(4_000, 0.0, noise=0.0, segments={"shop": texts})
    gain = np.where(np.array(texts) == "big", 0.2, -0.02 + draw.normal(0, 0.05, 4_000))
    decision = before(found._replace(challenger=np.clip(found.champion - gain, 0, 1)), RULE._replace(most=50_000))
    assert (decision.verdict, "better on shop=big alone" in decision.reason) == ("reject", True)


def test_calibration_counts() -> None:
    """It separates better, and its probabilities are far off: rejected. Right ones are promoted."""
    good = before(probable(3_000, 0.0), RULE)
    assert (good.verdict, [finding.name for finding in good.findings]) == ("promote", ["loss", "calibration"])
    bad = before(probable(3_000, 0.15), RULE)
    assert (bad.verdict, "probabilities lie 0.1" in bad.reason) == ("reject", True)


def test_calibration_error_of_no_numbers() -> None:
    """What answers NaN is not calibrated."""
    assert calibration_error(np.array([1.0] * 20), np.array([0.5] * 19 + [np.nan])) == np.inf
    assert calibration_error(np.array([1.0, 0.0] * 50), np.full(100, 0.5)) == pytest.approx(0.0, abs=0.41)


def test_unanswered_requests_reject() -> None:
    """A challenger that hangs, or fails, leaves requests out; so few answers decide before any outcome does."""
    decision = before(pairs(1_000, 0.1), RULE, [answers(1_000, 600, RULE)])
    assert decision.verdict == "reject"
    assert decision.reason == "answered 600 of 1,000 requests, 60.0%; 95% are asked for"
    assert before(pairs(0, 0.0), RULE, [answers(1_000, 0, RULE)]).verdict == "reject"


def test_skewed_inputs_reject() -> None:
    """An input that training nearly always had and that is missing now is named; chance and what was missing then are allowed."""
    assert list(skew({"a": 0.1}, {"a": 0.15}, 1_000, RULE)) == []
    assert list(skew({"a": 0.1}, {"a": 0.9}, 100, RULE)) == []
    (finding,) = skew({"a": 0.1, "b": 1.0}, {"a": 0.9, "b": 1.0, "new": 1.0}, 1_000, RULE)
    assert finding.said == "input a is missing in 90% of the requests, in 10% of its training"
    assert list(skew({"a": 0.1}, {"a": 0.9}, 1_000, RULE, {"a": 0.2})) == []  # the champion is served the same
    assert len(list(skew({"a": 0.1}, {"a": 0.9}, 1_000, RULE, {"a": 0.85}))) == 1


def dealt(rows: int, harm: float, share: float = 0.25) -> Dealt:
    """Losses of requests that were dealt out by chance."""
    draw = np.random.default_rng(9)
    challenger = draw.random(rows) < share
    return Dealt(np.clip(draw.normal(0.3, 0.1, rows) + harm * challenger, 0, 1), challenger, share)


def test_a_share_that_does_no_harm_goes_on() -> None:
    """With its own outcomes, no sooner."""
    assert during(dealt(200, 0.0), 0.3, RULE).verdict == "wait"
    assert during(dealt(2_000, 0.0), 0.3, RULE).verdict == "promote"
    mine = Dealt(np.array([0.25, 0.75, 0.5]), np.array([False, False, True]), 0.5)
    (finding,) = during(mine, 0.5, RULE).findings
    assert (finding.champion, finding.challenger) == (0.5, 0.5)
    assert finding.said.startswith("loses 0.5 on 1 outcomes of its own, the champion 0.5 on 2; by requests dealt by chance it loses +0 (")
    assert (
        during(mine._replace(challenger=np.zeros(3, bool)), 0.5, RULE).findings[0].said == "no outcomes of its own yet, 3 of the champion"
    )


def test_a_share_that_harms_is_taken_back() -> None:
    """The difference of the means is about the harm, whatever the share."""
    decision = during(dealt(4_000, 0.3), 0.3, RULE)
    assert decision.verdict == "roll back"
    assert decision.findings[0].low is not None
    assert decision.findings[0].low > 0
    beside = [GateFinding("answers", "against", "answers nothing")]
    assert during(dealt(10, 0.0), 0.3, RULE, beside).reason == "answers nothing"
    assert np.mean(dealt(20_000, 0.3).harms(0.3)) * dealt(1, 0.0).most == pytest.approx(0.3, abs=0.02)


def test_a_promoted_one_is_watched() -> None:
    """Worse than the version that it replaced: rolled back; no harm: it stays; else it waits."""
    assert after(pairs(1_000, -0.1), RULE).verdict == "roll back"
    assert after(pairs(1_000, 0.0), RULE).verdict == "promote"
    assert after(pairs(100, 0.0), RULE).verdict == "wait"


def test_losses_are_bounded() -> None:
    """From 0 to 1, whatever is answered; what answers NaN loses everything."""
    outcomes, outputs = np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.5, np.nan])
    assert of_probabilities("brier", outcomes, outputs).tolist() == [0.0, 1.0, 0.25, 1.0]
    assert of_probabilities("log_loss", outcomes, outputs)[[0, 1, 3]].tolist() == [0.0, 1.0, 1.0]
    assert of_values("absolute", np.zeros(3), np.array([1.0, 9.0, np.inf]), 2.0).tolist() == [0.5, 1.0, 1.0]
    assert of_values("squared", np.zeros(2), np.array([1.0, 9.0]), 2.0).tolist() == [0.25, 1.0]
    places, probabilities = np.array([0, -1]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert of_classes("brier", places, probabilities).tolist() == [0.0, 1.0]
    assert of_classes("log_loss", places, probabilities).tolist() == [0.0, 1.0]
