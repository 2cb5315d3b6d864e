"""What is known about a version before it serves: how good it is on rows it has not seen, where, beside what, and by which inputs."""

from __future__ import annotations

import math

import msgspec

Metrics = dict[str, float]
EVALUATION, REPORT = "evaluation.json", "report.html"
"""What they are called beside a version."""


class Bin(msgspec.Struct, frozen=True):
    """A tenth of the held-out rows by their outputs: how many they are, the mean output, and the mean label."""

    rows: int
    output: float
    label: float


class Importance(msgspec.Struct, frozen=True):
    """By how much the loss grows when the values of an input are shuffled among the rows: mean and standard deviation over shuffles."""

    input: str
    mean: float
    deviation: float


class Segment(msgspec.Struct, frozen=True):
    """The held-out rows of which a field has a value, or lies in a range."""

    field: str
    value: str
    rows: int
    metrics: Metrics


class LearningPoint(msgspec.Struct, frozen=True):
    """The loss on the held-out rows of a pipeline that was fitted on so many rows."""

    rows: int
    loss: float


class Loss(msgspec.Struct, frozen=True):
    """A loss of two versions on the same rows, smaller is better, and the mean of the differences (the new one less the champion) with its
    95 % interval."""

    name: str
    new: float
    champion: float
    difference: float
    low: float
    high: float


class ChampionBeside(msgspec.Struct, frozen=True):
    """The champion on held-out rows that it was not fitted on either. `said`: why there is no comparison (empty: there is one)."""

    version: str
    rows: int
    losses: list[Loss]
    said: str = ""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `loss`: the name of the loss that importance and learning curve show; `baseline`: the metrics of the mean label; `ece`: the
    mean distance of outputs and labels over the tenths; `roc`: false and true positive rates, of a probability."""

    model: str
    version: str
    output: str
    fitted_rows: int
    held_out_rows: int
    held_out_from: int
    data: str
    metrics: Metrics
    loss: str
    baseline: Metrics
    ece: float
    bins: list[Bin] = []
    roc: list[tuple[float, float]] = []
    importance: list[Importance] = []
    segments: list[Segment] = []
    learning: list[LearningPoint] = []
    champion: ChampionBeside | None = None

    @property
    def skill(self) -> float:
        """The share of the baseline's loss that the version is without; NaN where the baseline has none."""
        loss, base = self.metrics.get(self.loss, math.nan), self.baseline.get(self.loss, math.nan)
        return 1 - loss / base if base else math.nan
