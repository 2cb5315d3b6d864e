"""Joining predictions with outcomes, as pure logic: records in, results out.

An outcome answers a prediction of the same model and subject when it was published (`known`) within `within_ms` of the prediction's time, before or
after. Of several, the first in the log counts. A prediction that none has answered when the clock passes its time plus `within_ms` is
answered `never`. Of several predictions with one id only the first counts; one without a subject is not joined.

Which outcome answers which prediction depends on the records alone: not on how the topics were interleaved, cut into batches or read again.
Only `never` depends on the clock: an outcome that arrives when the clock is past its prediction's deadline comes too late, and is counted.
The caller lets the clock pass a time only when it has read everything that was in the log when that time was first seen.

The state is a function of the records below the positions read and of the clock. So it can be made again: feed the records of the last `memory_ms`
before the clock, move the clock, drop the results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import Literal, NamedTuple, TypeVar

from tidemill.records import ResultRecord

T = TypeVar("T")

_HOUR_MS = 3_600_000

Subject = tuple[str, str]
"""Model and subject."""


class LoggedPrediction(NamedTuple):
    """What the join needs of a prediction."""

    id: str
    model: str
    version: str
    subject: str | None
    time: int
    output: float


class KnownOutcome(NamedTuple):
    """What the join needs of an outcome."""

    model: str
    subject: str
    value: float
    known: int


class Join:
    """The join of all models. `within_ms`: by model; predictions of other models are left alone.

    `clock`: every prediction whose deadline lies before it has its result. Results wait, with `seq` 0, until `take`.
    By model: `pending` predictions that wait, `accepted` predictions so far, `late` outcomes that came after their prediction was given up.
    """

    def __init__(self, within_ms: Mapping[str, int], clock: int = 0) -> None:
        self.clock = clock
        self.accepted: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.pending: Counter[str] = Counter()
        self._within_ms = dict(within_ms)
        self._results: list[ResultRecord] = []
        self._waiting: dict[Subject, list[LoggedPrediction]] = {}
        self._answers: dict[Subject, list[KnownOutcome]] = {}
        self._seen: set[str] = set()
        self._given_up: set[Subject] = set()
        self._deadlines: list[tuple[int, Subject]] = []
        self._answers_end: list[tuple[int, Subject]] = []
        self._seen_end: list[tuple[int, str]] = []
        self._given_up_end: list[tuple[int, Subject]] = []

    @property
    def memory_ms(self) -> int:
        """How long before the clock records still matter: the longest of all models."""
        return max(map(_memory_ms, self._within_ms.values()), default=0)

    def predict(self, prediction: LoggedPrediction) -> None:
        """Takes a prediction: it is answered at once, waits, or is a repetition."""
        within_ms = self._within_ms.get(prediction.model)
        if within_ms is None or prediction.subject is None or prediction.id in self._seen:
            return
        self.accepted[prediction.model] += 1
        end = prediction.time + _memory_ms(within_ms)
        if end >= self.clock:
            self._seen.add(prediction.id)
            heappush(self._seen_end, (end, prediction.id))
        subject = (prediction.model, prediction.subject)
        for outcome in self._answers.get(subject, ()):
            if abs(outcome.known - prediction.time) <= within_ms:
                self._resolve(prediction, outcome)
                return
        if prediction.time + within_ms < self.clock:
            self._give_up(prediction, subject)
            return
        self._waiting.setdefault(subject, []).append(prediction)
        self.pending[prediction.model] += 1
        heappush(self._deadlines, (prediction.time + within_ms, subject))

    def outcome(self, outcome: KnownOutcome) -> None:
        """Takes an outcome: it answers the predictions that wait for it, and is kept for those still to come."""
        within_ms = self._within_ms.get(outcome.model)
        if within_ms is None:
            return
        subject, end = (outcome.model, outcome.subject), outcome.known + _memory_ms(within_ms)
        answers = self._answers.get(subject, [])
        if end < self.clock or any(answer.known == outcome.known for answer in answers):
            return  # of two that were published at one time, the second is never the first that fits
        self._answers[subject] = [*answers, outcome]
        heappush(self._answers_end, (end, subject))
        left = []
        for prediction in self._waiting.pop(subject, ()):
            if abs(outcome.known - prediction.time) <= within_ms:
                self.pending[prediction.model] -= 1
                self._resolve(prediction, outcome)
            else:
                left.append(prediction)
        if left:
            self._waiting[subject] = left
        elif subject in self._given_up:
            self._given_up.discard(subject)
            self.late[outcome.model] += 1

    def advance(self, clock: int) -> None:
        """Moves the clock, never back: gives up predictions whose deadline lies before it and forgets what can no longer matter."""
        self.clock = max(self.clock, clock)
        for subject in self._due(self._deadlines):
            within_ms = self._within_ms[subject[0]]
            left = []
            for prediction in self._waiting.pop(subject, ()):
                if prediction.time + within_ms < self.clock:
                    self.pending[prediction.model] -= 1
                    self._give_up(prediction, subject)
                else:
                    left.append(prediction)
            if left:
                self._waiting[subject] = left
        self._forget()

    def take(self) -> list[ResultRecord]:
        """The results since the last call."""
        results, self._results = self._results, []
        return results

    def _forget(self) -> None:
        for subject in self._due(self._answers_end):
            memory_ms = _memory_ms(self._within_ms[subject[0]])
            left = [outcome for outcome in self._answers.pop(subject, ()) if outcome.known + memory_ms >= self.clock]
            if left:
                self._answers[subject] = left
        for prediction_id in self._due(self._seen_end):
            self._seen.discard(prediction_id)
        for subject in self._due(self._given_up_end):
            self._given_up.discard(subject)

    def _due(self, heap: list[tuple[int, T]]) -> Iterator[T]:
        """Takes what lies before the clock off a heap."""
        while heap and heap[0][0] < self.clock:
            yield heappop(heap)[1]

    def _resolve(self, prediction: LoggedPrediction, outcome: KnownOutcome) -> None:
        self._results.append(_result(prediction, "joined", outcome.known, outcome.value))

    def _give_up(self, prediction: LoggedPrediction, subject: Subject) -> None:
        within_ms = self._within_ms[prediction.model]
        self._results.append(_result(prediction, "never", prediction.time + within_ms, None))
        self._given_up.add(subject)
        heappush(self._given_up_end, (prediction.time + _memory_ms(within_ms), subject))


def _memory_ms(within_ms: int) -> int:
    """How long an outcome and a prediction's id are kept: a prediction may be logged long after its time, when its client asked in vain."""
    return max(2 * within_ms, _HOUR_MS)


def _result(prediction: LoggedPrediction, status: Literal["joined", "never"], known: int, value: float | None) -> ResultRecord:
    assert prediction.subject is not None
    return ResultRecord(
        seq=0,
        prediction=prediction.id,
        model=prediction.model,
        version=prediction.version,
        subject=prediction.subject,
        time=prediction.time,
        output=prediction.output,
        status=status,
        known=known,
        outcome=value,
    )
