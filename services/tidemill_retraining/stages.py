"""One look at a step of a run: what the gate says, and what it is told beside the losses."""

from __future__ import annotations

from typing import NamedTuple

from tidemill.declarations import Model
from tidemill.declarations.retrain import Retrain
from tidemill.gate import judge
from tidemill.gate.guards import answers, skew
from tidemill.gate.rows import PairedLosses
from tidemill.gate.rule import Decision, Rule
from tidemill.models.artifact import Manifest
from tidemill.retrainings import GateFinding, LossName
from tidemill_retraining.evidence import GRACE_MS, Evidence, Measuring
from tidemill_retraining.history import OpenRun

_CLIP = 10.0  # mean errors of the champion's evaluation


class Seats(NamedTuple):
    """The two versions of a step. `first`: answers; `other`: is asked beside it, or answers a share."""

    first: Manifest
    other: Manifest

    @property
    def incomparable(self) -> str:
        """Why their losses cannot be compared; empty if they can."""
        if self.first.output != self.other.output:
            return f"{self.first.version} answers with a {self.first.output}, {self.other.version} with a {self.other.output}"
        return ""


def rule_of(policy: Retrain) -> Rule:
    """What is asked of a new version."""
    return Rule(policy.budget, policy.least, policy.most)


def measuring(model: Model, policy: Retrain, first: Manifest) -> Measuring:
    """How answers are measured: as declared, else by the output of the version that answers."""
    usual: LossName = "absolute" if first.output == "value" else "brier"
    clip = policy.clip or _CLIP * max(first.metrics.get("mae", 1.0), 1e-12)
    named = model.training.segments if policy.segments is None else policy.segments
    segments = tuple(name for name in named if name in model.request_fields)
    return Measuring(first.output, policy.loss or usual, clip, policy.cluster, segments)


def evidence_for(run: OpenRun, model: Model, policy: Retrain, seats: Seats, grace_ms: int = GRACE_MS) -> Evidence:
    """What will be known of a step."""
    columns = [item.name for item in seats.other.inputs]
    found = Evidence(run.model, seats.first.version, seats.other.version, measuring(model, policy, seats.first), columns, grace_ms)
    for version in run.line:
        found.join(version)
    return found


def look(run: OpenRun, policy: Retrain, evidence: Evidence, seats: Seats, now: int) -> Decision:
    """What the gate says to a run whose version is a shadow, in canary, or promoted."""
    rule = rule_of(policy)
    if run.step == "canary":
        return judge.during(evidence.dealt(run.share), run.expected, rule)
    if run.step == "promoted":
        return judge.after(_turned(evidence), rule)
    beside: list[GateFinding] = [answers(*evidence.answered(now, run.since), rule)]
    missing = evidence.missing()
    trained, champions = (
        {name: then for name in missing if (then := _missing_then(seat, name)) is not None} for seat in (seats.other, seats.first)
    )
    beside += skew(trained, missing, evidence.others, rule, champions)
    return judge.before(evidence.pairs(), rule, beside)


def succeeds(run: OpenRun, policy: Retrain, evidence: Evidence, now: int) -> Decision:
    """What the gate says to a snapshot that is a shadow beside an earlier one of its line: it takes its place unless it is shown to be worse."""
    rule = rule_of(policy)
    decision = judge.after(evidence.pairs(), rule, [answers(*evidence.answered(now, run.since), rule)])
    return decision._replace(verdict="reject") if decision.verdict == "roll back" else decision


def _turned(evidence: Evidence) -> PairedLosses:
    """After the promotion the former champion is the one that is asked beside: it is what the new one is measured by."""
    found = evidence.pairs()
    return found._replace(
        champion=found.challenger,
        challenger=found.champion,
        champion_outputs=found.challenger_outputs,
        challenger_outputs=found.champion_outputs,
    )


def _missing_then(manifest: Manifest, name: str) -> float | None:
    """The share of training's rows in which an input was missing; None where the manifest does not say."""
    found = manifest.reference.get(name)
    return None if found is None or not found.rows else found.missing / found.rows


def at_the_horizon(open_run: OpenRun, policy: Retrain, decision: Decision) -> Decision:
    """Evidence that did not come in time keeps the champion of before; a version that was promoted on evidence stays."""
    if open_run.step == "promoted":
        return decision._replace(verdict="promote", reason=f"no harm was shown within {policy.horizon}: {decision.reason}")
    return decision._replace(verdict="reject", reason=f"not shown to be better within {policy.horizon}: {decision.reason}")
