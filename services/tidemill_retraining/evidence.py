"""What a champion and a challenger answered since a step began, and what became of it. Pure: records in, rows for the gate out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.declarations.models import class_name
from tidemill.gate.losses import of_classes, of_probabilities, of_values
from tidemill.gate.rows import Dealt, PairedLosses
from tidemill.models.artifact import Output
from tidemill.records import PredictionRecord, ResultRecord
from tidemill.retrainings import LossName

Floats = npt.NDArray[np.float64]

MOST_KEPT = 250_000
"""Answers of one step that are kept: a bound on memory."""

GRACE_MS = 30_000
"""So long after the champion's answer a shadow's may be logged."""


class KeptAnswer(NamedTuple):
    """What is kept of an answer. `cluster`: what it hangs together with; `segments`: the values of the fields of segments."""

    output: float
    probabilities: Mapping[str, float]
    served: int
    cluster: str
    segments: tuple[str, ...]


class KeptOutcome(NamedTuple):
    """What became of a request. `version`: which answered it; `output`, `probabilities`: what that said."""

    version: str
    output: float
    probabilities: Mapping[str, float]
    value: float | str


class Measuring(NamedTuple):
    """How answers are measured. `clip`: the largest error of a value that counts; `cluster`: a field, None: the subject."""

    output: Output
    loss: LossName
    clip: float = 1.0
    cluster: str | None = None
    segments: tuple[str, ...] = ()


class Evidence:
    """Of one step of a run, in which one version answers (`first`) and another is asked beside it or answers a share (`other`)."""

    def __init__(
        self, model: str, first: str, other: str, measuring: Measuring, others_columns: list[str], grace_ms: int = GRACE_MS
    ) -> None:
        self.model, self.first, self.other, self._how, self._grace_ms = model, first, other, measuring, grace_ms
        self._columns = others_columns
        self._answers: dict[str, dict[str, KeptAnswer]] = {first: {}, other: {}}
        self._line, self._asked = {other}, {other: (math.inf, -math.inf)}  # of each version of the other seat: its first and last answer
        self._outcomes: dict[str, KeptOutcome] = {}
        self._missing = np.zeros(len(others_columns), np.int64)
        self.never = 0
        self.newest_ms = 0  # when the newest outcome became known

    def join(self, version: str) -> None:
        """A newer snapshot has the seat of the other version: what both answered counts as one."""
        self._line.add(version)
        self._asked.setdefault(version, (math.inf, -math.inf))

    def answer(self, record: PredictionRecord) -> None:
        """Takes an answer of a version, or of a shadow; the first of an id counts."""
        kept = self._answers.get(self._seat(record.version))
        if record.model != self.model or kept is None or record.id in kept or len(kept) >= MOST_KEPT:
            return
        fields = record.entities
        cluster = str(fields.get(self._how.cluster, "")) if self._how.cluster else record.subject or record.id
        segments = tuple(str(fields.get(name, "")) for name in self._how.segments)
        kept[record.id] = KeptAnswer(record.output, record.probabilities, record.served, cluster, segments)
        if record.version in self._line:
            first, last = self._asked[record.version]
            self._asked[record.version] = min(first, record.served), max(last, record.served)
            if len(record.inputs) == len(self._columns):
                self._missing += np.array([value is None for value in record.inputs])

    def _seat(self, version: str) -> str:
        return self.other if version in self._line else version

    def result(self, record: ResultRecord) -> None:
        """Takes an outcome of an answer of either version."""
        if record.model != self.model or self._seat(record.version) not in self._answers:
            return
        if record.outcome is None:
            self.never += 1
        elif record.prediction not in self._outcomes and len(self._outcomes) < MOST_KEPT:
            self._outcomes[record.prediction] = KeptOutcome(self._seat(record.version), record.output, record.probabilities, record.outcome)
            self.newest_ms = max(self.newest_ms, record.known)

    def pairs(self) -> PairedLosses:
        """Requests with an outcome that both versions answered, in the order of their outcomes."""
        both = [
            (self._answers[self.first][name], self._answers[self.other][name], outcome)
            for name, outcome in self._outcomes.items()
            if name in self._answers[self.first] and name in self._answers[self.other]
        ]
        values = [outcome.value for _, _, outcome in both]
        one, other = [pair[0] for pair in both], [pair[1] for pair in both]
        known = self._how.output == "probability"
        return PairedLosses(
            self._losses(one, values),
            self._losses(other, values),
            [answer.cluster for answer in one],
            {name: [answer.segments[place] for answer in one] for place, name in enumerate(self._how.segments)},
            np.array(values, np.float64) if known else np.empty(0),
            np.array([answer.output for answer in one]) if known else np.empty(0),
            np.array([answer.output for answer in other]) if known else np.empty(0),
        )

    def dealt(self, share: float) -> Dealt:
        """Requests with an outcome that either version answered."""
        rows = [
            (answer, outcome)
            for name, outcome in self._outcomes.items()
            if (answer := self._answers[outcome.version].get(name)) is not None
        ]
        losses = self._losses([answer for answer, _ in rows], [outcome.value for _, outcome in rows])
        own = np.array([outcome.version == self.other for _, outcome in rows], bool)
        return Dealt(losses, own, share, [answer.cluster for answer, _ in rows])

    def answered(self, now_ms: int, since_ms: int) -> tuple[int, int]:
        """Of the requests that the first version answered since the other was asked, and long enough ago: how many there are, and how many both answered. Between two
        snapshots of a line there may be none that is asked."""
        other, newest = self._answers[self.other], max(self._line)
        spans = [(first, math.inf if version == newest else last) for version, (first, last) in self._asked.items() if first < math.inf]
        spans = spans or [(since_ms + 2 * self._grace_ms, math.inf)]
        asked = [
            name
            for name, answer in self._answers[self.first].items()
            if answer.served <= now_ms - self._grace_ms and any(first <= answer.served <= last for first, last in spans)
        ]
        return len(asked), sum(name in other for name in asked)

    def missing(self) -> dict[str, float]:
        """The share of the other version's answers in which an input was missing, by input."""
        rows = max(1, len(self._answers[self.other]))
        return {name: count / rows for name, count in zip(self._columns, self._missing.tolist(), strict=True)}

    @property
    def others(self) -> int:
        """How many answers the other version gave."""
        return len(self._answers[self.other])

    def _losses(self, answers: list[KeptAnswer], values: list[float | str]) -> Floats:
        how = self._how
        if how.output == "probabilities":
            return _of_classes(how.loss, answers, values)
        outputs = np.array([answer.output for answer in answers], np.float64)
        outcomes = np.array([math.nan if isinstance(value, str) else value for value in values], np.float64)
        if how.output == "probability":
            return of_probabilities(how.loss, outcomes, outputs)
        return of_values(how.loss, outcomes, outputs, how.clip)


def _of_classes(loss: LossName, answers: list[KeptAnswer], values: list[float | str]) -> Floats:
    """A version gives no probability to a class that it does not know."""
    classes = sorted({name for answer in answers for name in answer.probabilities} | {""})
    place = {name: at for at, name in enumerate(classes)}
    places = np.array([place.get(class_name(value), -1) for value in values], np.int64)
    given = np.array([[answer.probabilities.get(name, 0.0) for name in classes] for answer in answers], np.float64)
    return of_classes(loss, places, given.reshape(len(answers), len(classes)))
