"""What became of traffic: counts, and how right the answers were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidemill.declarations.models import class_name
from tidemill.traffic.acts import Act
from tidemill.traffic.drifts import Drift

_SHOWN = 3


@dataclass
class Quality:
    """Answers whose truth came: how many, the sums of the answers and of the truths, and of what the answers lost (the squared difference; of classes 0 or 1)."""

    outcomes: int = 0
    answers: float = 0.0
    truths: float = 0.0
    lost: float = 0.0
    classes: bool = False

    def __str__(self) -> str:
        """For a person."""
        if self.classes:
            return f"{self.outcomes:,} outcomes, {1 - self.lost / self.outcomes:.1%} of the answers right"
        means = f"mean answer {self.answers / self.outcomes:.3f}, mean outcome {self.truths / self.outcomes:.3f}"
        return f"{self.outcomes:,} outcomes, {means}, mean squared difference {self.lost / self.outcomes:.4f}"


@dataclass
class Tally:
    """Counts of what was sent. `refused` and `unanswered`: by reason."""

    drifts: Sequence[Drift] = ()
    sent: int = 0
    accepted: int = 0
    outcomes: int = 0
    asked: int = 0
    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    quality: dict[tuple[str, bool], Quality] = field(default_factory=dict)
    _answers: dict[tuple[str, str], list[Mapping[str, Any]]] = field(default_factory=dict)

    def told(self, act: Act, reason: str | None) -> None:
        """An event was sent; `reason`: why it was refused."""
        self.sent += 1
        if reason is not None:
            self.refused[reason] += 1
            return
        self.accepted += 1
        if act.answers:
            self.outcomes += 1
            self._judge(act)

    def heard(self, act: Act, answer: Mapping[str, Any]) -> None:
        """A question was answered, perhaps by an error."""
        self.asked += 1
        if "error" in answer:
            self.unanswered[str(answer["error"])[:200]] += 1
            return
        self.answered += 1
        self._answers.setdefault((act.model, act.subject), []).append(answer)

    def _judge(self, act: Act) -> None:
        if act.truth is None:
            return
        drifted = any(drift.holds(act.offset_ms) for drift in self.drifts)
        for answer in self._answers.pop((act.answers, act.subject), []):
            found = self.quality.setdefault((act.answers, drifted), Quality(classes="class" in answer))
            found.outcomes += 1
            if found.classes:
                found.lost += answer["class"] != class_name(act.truth)
            elif isinstance(act.truth, int | float):
                output = answer.get("probability", answer.get("value", 0.0))
                found.answers, found.truths = found.answers + output, found.truths + act.truth
                found.lost += (output - act.truth) ** 2

    def progress(self) -> str:
        """One line."""
        refused = f" ({sum(self.refused.values()):,} refused)" if self.refused else ""
        return f"{self.sent:,} events sent{refused}, {self.outcomes:,} of them outcomes; {self.asked:,} questions asked, {self.answered:,} answered"

    def lines(self) -> Iterator[str]:
        """The summary."""
        yield self.progress()
        for what, reasons in (("refused", self.refused), ("not answered", self.unanswered)):
            for reason, times in reasons.most_common(_SHOWN):
                yield f"{what}: {times:,} times: {reason}"
        for (model, drifted), found in sorted(self.quality.items()):
            yield f"{model}{(' with drifts' if drifted else ' without drifts') if self.drifts else ''}: {found}"
