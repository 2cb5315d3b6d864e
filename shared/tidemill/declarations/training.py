"""How a model is trained, where the defaults are not wanted. Only Python knows it: it is not in the catalogue, and changes nothing that serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from tidemill.declarations.checks import Declaration
from tidemill.errors import DeclarationError

_HOLDOUT = 0.2


@dataclass(frozen=True, eq=False)
class Expect(Declaration):
    """What is expected of an input in the training set. `low`, `high`: the bounds of a number, both allowed; `among`: the texts that there
    may be; `missing`: the largest share of rows without a value."""

    _: KW_ONLY
    low: float | None = None
    high: float | None = None
    among: Sequence[str] | None = None
    missing: float = 1.0


@dataclass(frozen=True, eq=False)
class ByTime(Declaration):
    """The last rows in time are held out: this share of them."""

    _: KW_ONLY
    holdout: float = _HOLDOUT


@dataclass(frozen=True, eq=False)
class ByGroup(Declaration):
    """Whole groups are held out, about this share of them: those of a value of `field` are all fitted on, or all held out. `field`: one that
    requests give, an input, or "subject"."""

    field: str
    _: KW_ONLY
    holdout: float = _HOLDOUT


@dataclass(frozen=True, eq=False)
class RollingOrigin(Declaration):
    """The last rows in time are held out, in so many stretches: each is answered by a pipeline that was fitted on all rows before it."""

    folds: int = 5
    _: KW_ONLY
    holdout: float = _HOLDOUT


@dataclass(frozen=True, eq=False)
class Select(Declaration):
    """Inputs that help are chosen before fitting: those whose permutation importance, on rows that are not those of the evaluation, is
    above `least` in at least `stable` of so many `rounds`, each with another part of the rows. `most`: no more than so many."""

    _: KW_ONLY
    rounds: int = 5
    stable: float = 0.8
    least: float = 0.0
    most: int | None = None


@dataclass(frozen=True, eq=False)
class Search(Declaration):
    """Parameters of the pipeline are searched by Optuna. `space`: a function of a trial that returns parameters by the names of
    `set_params`, as `{"max_iter": trial.suggest_int("max_iter", 50, 500)}`.

    A trial is measured on `folds` stretches of the rows before the held-out ones, each by a pipeline fitted on all before it, and pruned
    when it does worse than the median of the others. `processes`: how many search at once; with more than one the trials differ from run
    to run."""

    space: Callable[[Any], Mapping[str, Any]]
    _: KW_ONLY
    trials: int = 30
    folds: int = 3
    processes: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Training(Declaration):
    """`segments`: fields by whose values the quality is shown too: fields that a request gives, or inputs by name; without any, the inputs
    that are few texts. `expect`: what is expected of inputs, by name; a set that is otherwise is refused. `trusted`: inputs that may know
    the label, since they are known when the question is asked.

    `split`: which rows are held out. `metrics`: own metrics by name, functions of labels and outputs of the held-out rows. `weights`: a field
    that requests give, or an input, whose number is the row's `sample_weight` in fitting. `select`, `search`: off unless they are given.
    """

    _: KW_ONLY
    segments: Sequence[str] = ()
    expect: Mapping[str, Expect] = field(default_factory=dict)
    trusted: Sequence[str] = ()
    split: ByTime | ByGroup | RollingOrigin = ByTime()
    metrics: Mapping[str, Callable[[Any, Any], float]] = field(default_factory=dict)
    weights: str | None = None
    select: Select | None = None
    search: Search | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.split, ByTime | ByGroup | RollingOrigin):
            self._fail("split", f"{self.split!r} is no split", "write tm.ByTime(), tm.ByGroup(field) or tm.RollingOrigin(folds)")
        if not 0 < self.split.holdout < 1:
            self._fail("split", f"a holdout of {self.split.holdout!r}", "write a share such as 0.2")
        if isinstance(self.split, RollingOrigin) and self.split.folds < 1:
            self._fail("split", f"{self.split.folds!r} folds", "write 1 or more")
        if self.search is not None and (
            not callable(self.search.space) or min(self.search.trials, self.search.folds, self.search.processes) < 1
        ):
            self._fail("search", "a search needs a function as space, and 1 or more trials, folds and processes", "correct the Search")
        for name, metric in self.metrics.items():
            if not callable(metric) or name in _OURS:
                why = f"{name!r} is a metric of tidemill" if name in _OURS else f"{metric!r} cannot be called"
                self._fail("metrics", why, "give functions of labels and outputs, under names of your own")

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Training: {message}", where=self.declared_at, field=name, mend=mend)


_OURS = ("auc", "auc_error", "log_loss", "brier", "positive_share", "mae", "mae_error", "rmse", "examples", "skill", "ece")
