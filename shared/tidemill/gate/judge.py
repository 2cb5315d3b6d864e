"""Judging a challenger: before it is promoted, while it answers a share, and after it was promoted.

Each function is one look at all evidence so far. It may be called after every row; the budget holds over all calls together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tidemill.gate.guards import Floats, calibration, segments
from tidemill.gate.rows import Dealt, PairedLosses
from tidemill.gate.rule import Decision, Rule
from tidemill.gate.wealth import bounds, log_wealth, needed
from tidemill.retrainings import GateFinding


def before(pairs: PairedLosses, rule: Rule, beside: Sequence[GateFinding] = ()) -> Decision:
    """A shadow beside the champion. "promote" needs evidence that it loses less, `rule.least` outcomes, and nothing against it; "reject" follows from
    evidence that it is worse in anything, and from `rule.most` outcomes without evidence that it is better: a tie keeps the champion.

    `beside`: what else was looked at, on answers without outcomes.
    """
    pairs = pairs.independent()
    rows, against = len(pairs.champion), [finding for finding in beside if finding.verdict == "against"]
    found, loss = list(beside), _loss(pairs, rule)
    found.insert(0, loss)
    if against:
        return Decision("reject", _because(against), found)
    if not rows:
        return Decision("wait", "no request that both answered has an outcome yet", found)
    if loss.verdict == "against":
        return Decision("reject", loss.said, found)
    if rows >= rule.least:
        more = [finding for finding in (calibration(pairs, rule), *segments(pairs, rule)) if finding is not None]
        found += more
        if against := [finding for finding in more if finding.verdict == "against"]:
            return Decision("reject", _because(against), found)
        if loss.verdict == "for" and not any(finding.verdict == "open" for finding in beside):
            return Decision("promote", loss.said, found)
    if rows >= rule.most:
        return Decision("reject", f"not shown to be better on {rows:,} outcomes, so the champion stays: {loss.said}", found)
    return Decision("wait", _waiting(rows, rule, loss, beside), found)


def during(dealt: Dealt, expected: float, rule: Rule, beside: Sequence[GateFinding] = ()) -> Decision:
    """A challenger that answers a share. It was shown to be better; "roll back" follows from evidence that it is worse after all, "promote" means that `rule.least`
    outcomes of its own show no harm. `expected`: see `Dealt.harms`."""
    harms, own = dealt.harms(expected), int(dealt.challenger.sum())
    harmed = log_wealth(harms) >= needed(rule.budget)
    low, high = (bound * dealt.most for bound in bounds(harms, rule.budget))
    lost, other = _mean(dealt.losses[~dealt.challenger]), _mean(dealt.losses[dealt.challenger])
    said = f"no outcomes of its own yet, {len(dealt.losses):,} of the champion"
    if lost is not None and other is not None:
        more = f"by requests dealt by chance it loses {float(harms.mean()) * dealt.most:+.4g} (between {low:+.3g} and {high:+.3g})"
        said = f"loses {other:.5g} on {own:,} outcomes of its own, the champion {lost:.5g} on {len(dealt.losses) - own:,}; {more}"
    verdict: Literal["for", "against", "open"] = "against" if harmed else "for" if own >= rule.least else "open"
    finding = GateFinding("loss of its share", verdict, said, lost, other, low, high, len(harms))
    found = [finding, *beside]
    if against := [one for one in found if one.verdict == "against"]:
        return Decision("roll back", _because(against), found)
    if any(one.verdict == "open" for one in found):
        return Decision("wait", f"{own:,} of {rule.least:,} outcomes of its own", found)
    return Decision("promote", said, found)


def after(pairs: PairedLosses, rule: Rule, beside: Sequence[GateFinding] = ()) -> Decision:
    """A champion beside the one that it replaced, which is the `champion` of the pairs still. "roll back" follows from evidence that the new one loses more;
    "promote" says that `rule.least` outcomes show none, so that it stays."""
    pairs = pairs.independent()
    rows, loss = len(pairs.champion), _loss(pairs, rule)
    found = [loss, *beside]
    if against := [finding for finding in found if finding.verdict == "against"]:
        return Decision("roll back", _because(against), found)
    if rows >= rule.least and not any(finding.verdict == "open" for finding in beside):
        return Decision("promote", f"no harm on {rows:,} outcomes: {loss.said}", found)
    return Decision("wait", f"{rows:,} of {rule.least:,} outcomes since it answers", found)


def _mean(losses: Floats) -> float | None:
    return float(losses.mean()) if len(losses) else None


def _loss(pairs: PairedLosses, rule: Rule) -> GateFinding:
    rows = len(pairs.champion)
    if not rows:
        return GateFinding("loss", "open", "no outcomes")
    lost, other = float(pairs.champion.mean()), float(pairs.challenger.mean())
    low, high = bounds(pairs.gains, rule.budget)
    share = f", {100 * (other - lost) / lost:+.1f} %" if lost > 0 else ""
    said = f"loses {other:.5g}, the champion {lost:.5g}{share}; less by {lost - other:+.3g} (between {low:+.3g} and {high:+.3g}) on {rows:,} outcomes"
    return GateFinding("loss", "for" if low > 0 else "against" if high < 0 else "open", said, lost, other, low, high, rows)


def _because(against: Sequence[GateFinding]) -> str:
    return "; ".join(finding.said for finding in against)


def _waiting(rows: int, rule: Rule, loss: GateFinding, beside: Sequence[GateFinding]) -> str:
    if rows < rule.least:
        return f"{rows:,} of {rule.least:,} outcomes"
    if loss.verdict == "for":
        return "; ".join(finding.said for finding in beside if finding.verdict == "open")
    return f"not shown to be better yet: {loss.said}"
