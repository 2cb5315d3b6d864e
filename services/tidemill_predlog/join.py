"""Joining predictions with outcomes, as pure logic: records in, results out.

An outcome answers a prediction of the same model and subject when it became known after the prediction's time and at most `within_ms`
later, never before: a subject may come back, and each prediction has its own answer. An event that announces a question itself answers
only predictions for earlier moments: what announced a prediction is not its outcome. Of several, the first in the log counts. A second
publication of an event (same id) is no outcome, for as long as outcomes are kept. A prediction that none has answered when the clock passes its time plus
`within_ms` is answered `never`, or with the value of `absent`. Of several predictions with one id only the first counts; one without a
subject is not joined. Training sets follow the same rule (`training/answers.py`).

Which outcome answers which prediction depends on the records alone: not on how the topics were interleaved, cut into batches or read again.
Only `never` and `absent` depend on the clock: an outcome that arrives when the clock is past its prediction's deadline comes too late, and is counted.
The caller lets the clock pass a time only when it has read everything that was in the log when that time was first seen.

The state is a function of the records below the positions read and of the clock. So it can be made again: feed the records of the last
`memory_ms` before the clock, move the clock, drop the results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush
from typing import NamedTuple, TypeVar

from tidemill.declarations.models import Wait
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
    probabilities: dict[str, float] = {}


class KnownOutcome(NamedTuple):
    """What the join needs of an outcome. `id`: by which a second publication of its event is known; `asks`: the moment of the question that
    its event announces too."""

    model: str
    subject: str
    value: float | str
    known: int
    id: str | None = None
    asks: int | None = None

    def stands_behind(self, other: KnownOutcome) -> bool:
        """Whether it came with `other` and after it in the log, so that it answers nothing which that one does not."""
        return self.known == other.known and (other.asks is None or (self.asks is not None and self.asks <= other.asks))


class Join:
    """The join of all models. `waits`: by model; predictions of other models are left alone.

    `clock`: every prediction whose deadline lies before it has its result. Results wait, with `seq` 0, until `take`.
    By model: `pending` predictions that wait, `accepted` predictions so far, `late` outcomes that came after their prediction was given up, `overdue` predictions that were
    logged after the end of their own wait, so that they are given up at once.
    """

    def __init__(self, waits: Mapping[str, Wait], clock: int = 0) -> None:
        self.clock = clock
        self.accepted: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.overdue: Counter[str] = Counter()
        self.pending: Counter[str] = Counter()
        self._waits = dict(waits)
        self._results: list[ResultRecord] = []
        self._waiting: dict[Subject, list[LoggedPrediction]] = {}
        self._answers: dict[Subject, list[KnownOutcome]] = {}
        self._published: dict[tuple[str, str], int] = {}
        self._seen: set[str] = set()
        self._given_up: set[Subject] = set()
        self._deadlines: list[tuple[int, Subject]] = []
        self._answers_end: list[tuple[int, Subject]] = []
        self._published_end: list[tuple[int, tuple[str, str]]] = []
        self._seen_end: list[tuple[int, str]] = []
        self._given_up_end: list[tuple[int, Subject]] = []

    @property
    def memory_ms(self) -> int:
        """How long before the clock records still matter: the longest of all models. An outcome may be kept for `_memory_ms`, and its first
        publication may be as much older."""
        return max((2 * _memory_ms(wait.within_ms) for wait in self._waits.values()), default=0)

    def predict(self, prediction: LoggedPrediction) -> None:
        """Takes a prediction: it is answered at once, waits, or is a repetition."""
        wait = self._waits.get(prediction.model)
        if wait is None or prediction.subject is None or prediction.id in self._seen:
            return
        within_ms = wait.within_ms
        self.accepted[prediction.model] += 1
        end = prediction.time + _memory_ms(within_ms)
        if end >= self.clock:
            self._seen.add(prediction.id)
            heappush(self._seen_end, (end, prediction.id))
        subject = (prediction.model, prediction.subject)
        for outcome in self._answers.get(subject, ()):
            if _answers(outcome, prediction, within_ms):
                self._resolve(prediction, outcome)
                return
        if prediction.time + within_ms < self.clock:
            self.overdue[prediction.model] += 1
            self._give_up(prediction, subject)
            return
        self._waiting.setdefault(subject, []).append(prediction)
        self.pending[prediction.model] += 1
        heappush(self._deadlines, (prediction.time + within_ms, subject))

    def outcome(self, outcome: KnownOutcome) -> None:
        """Takes an outcome: it answers the predictions that wait for it, and is kept for those still to come."""
        wait = self._waits.get(outcome.model)
        if wait is None:
            return
        memory_ms = _memory_ms(wait.within_ms)
        subject, end = (outcome.model, outcome.subject), outcome.known + memory_ms
        answers = self._answers.get(subject, [])
        again = outcome.id is not None and self._published_again((outcome.model, outcome.id), outcome.known, memory_ms)
        if again or end < self.clock or any(map(outcome.stands_behind, answers)):
            return
        self._answers[subject] = [*answers, outcome]
        heappush(self._answers_end, (end, subject))
        left = []
        for prediction in self._waiting.pop(subject, ()):
            if _answers(outcome, prediction, wait.within_ms):
                self.pending[prediction.model] -= 1
                self._resolve(prediction, outcome)
            else:
                left.append(prediction)
        if left:
            self._waiting[subject] = left
        elif subject in self._given_up:
            self._given_up.discard(subject)
            self.late[outcome.model] += 1

    def _published_again(self, event: tuple[str, str], known: int, memory_ms: int) -> bool:
        """Whether an event (model and id) came before, at most `memory_ms` before this publication. Notes the publication."""
        before = self._published.get(event)
        if before is None or before < known:
            self._published[event] = known
            heappush(self._published_end, (known + 2 * memory_ms, event))
        return before is not None and before >= known - memory_ms

    def advance(self, clock: int) -> None:
        """Moves the clock, never back: gives up predictions whose deadline lies before it and forgets what can no longer matter."""
        self.clock = max(self.clock, clock)
        for subject in self._due(self._deadlines):
            within_ms = self._waits[subject[0]].within_ms
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
            memory_ms = _memory_ms(self._waits[subject[0]].within_ms)
            left = [outcome for outcome in self._answers.pop(subject, ()) if outcome.known + memory_ms >= self.clock]
            if left:
                self._answers[subject] = left
        for event in self._due(self._published_end):
            known = self._published.get(event)
            if known is not None and known + 2 * _memory_ms(self._waits[event[0]].within_ms) < self.clock:
                del self._published[event]
        for prediction_id in self._due(self._seen_end):
            self._seen.discard(prediction_id)
        for subject in self._due(self._given_up_end):
            self._given_up.discard(subject)

    def _due(self, heap: list[tuple[int, T]]) -> Iterator[T]:
        """Takes what lies before the clock off a heap."""
        while heap and heap[0][0] < self.clock:
            yield heappop(heap)[1]

    def _resolve(self, prediction: LoggedPrediction, outcome: KnownOutcome) -> None:
        self._results.append(_result(prediction, outcome.known, outcome.value))

    def _give_up(self, prediction: LoggedPrediction, subject: Subject) -> None:
        wait = self._waits[prediction.model]
        self._results.append(_result(prediction, prediction.time + wait.within_ms, wait.absent))
        self._given_up.add(subject)
        heappush(self._given_up_end, (prediction.time + _memory_ms(wait.within_ms), subject))


def _answers(outcome: KnownOutcome, prediction: LoggedPrediction, within_ms: int) -> bool:
    later = outcome.asks is None or outcome.asks > prediction.time
    return later and prediction.time < outcome.known <= prediction.time + within_ms


def _memory_ms(within_ms: int) -> int:
    """How long an outcome and a prediction's id are kept: a prediction may be logged long after its time, when its client asked in vain. Also
    how long after an event its second publication is known as such."""
    return max(2 * within_ms, _HOUR_MS)


def _result(prediction: LoggedPrediction, known: int, outcome: float | str | None) -> ResultRecord:
    assert prediction.subject is not None
    return ResultRecord(
        seq=0,
        prediction=prediction.id,
        model=prediction.model,
        version=prediction.version,
        subject=prediction.subject,
        time=prediction.time,
        output=prediction.output,
        status="never" if outcome is None else "joined",
        known=known,
        outcome=outcome,
        probabilities=prediction.probabilities,
    )
