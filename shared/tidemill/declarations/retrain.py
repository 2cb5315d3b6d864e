"""When a model is trained again by itself, and what a new version must show. Only Python knows it: it is not in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

from tidemill.declarations.checks import Declaration, duration_ms
from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError
from tidemill.retrainings import LossName

Cause = Literal["drift", "performance", "skew", "code"]


@dataclass(frozen=True, eq=False)
class Retrain(Declaration):
    """A model is trained again by itself; the new version is a shadow first, then answers shares of the requests, then all.

    What begins a run. `on`: open alerts of these kinds about the champion, and "code": the project's files, or a view that the model reads, are not
    those that the champion was trained with; `rows`: so many new outcomes; `every`: so long after the last run. `at_most_a_day`: runs of the model in 24 hours; `rest`: the least time
    between the end of one and the next. By hand always: `tidemill retrain MODEL`.

    What a new version must show. `budget`: the chance that one that is no better is promoted, however often the gate looks; `loss`: what it must lose less by: "brier"
    (the default of probabilities), "log_loss", "absolute" (of values), "squared"; `clip`: errors of values above this count as this (default: ten times the champion's mean error in its
    evaluation); `least`: outcomes before each step; `most`, `horizon`: outcomes and time after which it is rejected if it was not shown to be better.
    `cluster`: a field that requests give, whose rows hang together and count once (default: the subject); `segments`: fields on no value of which it may be worse
    (default: those of `training`); `steps`: its shares of the requests, one after the other; `slower`: how many times as long as the champion an answer may take.
    """

    _: KW_ONLY
    on: Sequence[Cause] = ("drift", "performance", "skew")
    rows: int | None = None
    every: str | None = None
    at_most_a_day: int = 1
    rest: str = "6h"
    steps: Sequence[float] = (0.05, 0.25, 0.5)
    budget: float = 0.05
    loss: LossName | None = None
    clip: float | None = None
    least: int = 200
    most: int = 50_000
    horizon: str = "14d"
    cluster: str | None = None
    segments: Sequence[str] | None = None
    slower: float = 3.0

    name = "of a model"

    def __post_init__(self) -> None:
        for label in ("rest", "horizon", "every"):
            if getattr(self, label) is not None:
                duration_ms(self, label, getattr(self, label))
        if wrong := [one for one in self.on if one not in get_args(Cause)]:
            self._fail("on", f"{wrong[0]!r} begins no run", f"write some of {', '.join(get_args(Cause))}")
        if self.loss is not None and self.loss not in get_args(LossName):
            self._fail("loss", f"{self.loss!r} is no loss", f"write one of {', '.join(get_args(LossName))}")
        if not 0 < self.budget < 0.5:
            self._fail("budget", f"a budget of {self.budget!r}", "write a chance such as 0.05")
        if any(not 0 < share < 1 for share in self.steps) or list(self.steps) != sorted(set(self.steps)):
            self._fail("steps", f"the shares {self.steps!r}", "write growing shares between 0 and 1, such as (0.05, 0.25, 0.5)")
        for label in ("rows", "at_most_a_day", "least", "most", "clip", "slower"):
            value = getattr(self, label)
            if value is not None and value <= 0:
                self._fail(label, f"{value!r} is not above 0", "write a number above 0")
        if self.most < self.least:
            self._fail("most", f"{self.most:,} outcomes are fewer than the least, {self.least:,}", "write more")

    @property
    def rest_ms(self) -> int:
        """The least time between the end of a run and the next one."""
        return parse_ms(self.rest)

    @property
    def every_ms(self) -> int | None:
        """How long after the last run the next one begins."""
        return None if self.every is None else parse_ms(self.every)

    @property
    def horizon_ms(self) -> int:
        """How long a new version may take to show that it is better."""
        return parse_ms(self.horizon)

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Retrain: {message}", where=self.declared_at, field=name, mend=mend)
