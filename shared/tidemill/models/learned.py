"""Learning one outcome after the other, each once, in the order of their log. Pure: the same lessons give the same bytes, however often it was ended between.

What is kept is a snapshot after each so many outcomes. The learner itself goes on with what it read back from the snapshot, so one that begins
there again does the same steps on the same bytes. A lesson that fails is left out whole: the learner goes back to the snapshot and learns again all
lessons since but this one.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from tidemill.models.incremental import Incremental, Named

FILE = "learner"
"""The file of the newest snapshot, in the folder of the version that was trained."""
MOST_FAILURES = 20
REPEATED = "an outcome that was learned already"
REMEMBERED, TAIL = 10_000, 1_000


class Lesson(NamedTuple):
    """An outcome. `offset`: of its result in the topic; `seq`: of the result; `key`: of outcome and subject: an outcome that answers several predictions is
    learned once; `known`: when it was, in ms; `row`: the inputs of the prediction, None: it was not logged; `label`: see `Incremental.learn`; None: it cannot be learned."""

    offset: int
    seq: int
    key: int
    known: int
    row: Named | None
    label: float | None


def key_of(subject: str, known: int) -> int:
    """The key of an outcome: of two results of the same subject that became known at the same moment, the outcome is the same."""
    return int.from_bytes(hashlib.blake2b(f"{known} {subject}".encode(), digest_size=8).digest(), "big", signed=True)


class PriorAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What the learner answered just before it learned an outcome."""

    answer: list[float]
    label: float


class Learned(msgspec.Struct, frozen=True):
    """A snapshot. `line`: the version that was trained; `pipeline`: the pickle; `applied`: the next offset of the topic of results; `seq`: the next result;
    `learned`: outcomes; `known`: of the newest; `left_out`: how many, by reason; `keys`: of the newest outcomes; `tail`: the newest answers;
    `stopped`: why it learns no more."""

    line: str
    pipeline: bytes
    applied: int = 0
    seq: int = 0
    learned: int = 0
    known: int = 0
    left_out: dict[str, int] = {}
    keys: list[int] = []
    tail: list[PriorAnswer] = []
    stopped: str = ""

    @property
    def lost(self) -> int:
        """Outcomes that could not be learned."""
        return sum(count for why, count in self.left_out.items() if why != REPEATED)

    def encoded(self) -> bytes:
        """As a file."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decoded(cls, content: bytes) -> Learned:
        """From a file. Raises msgspec.DecodeError."""
        return msgspec.msgpack.decode(content, type=cls)


class Limits(NamedTuple):
    """`every`: outcomes between two snapshots; `most_bytes`: of a pickle."""

    every: int
    most_bytes: int


class Learner:
    """Goes on from a snapshot. `learn`: how one outcome is learned (raises whatever the pipeline raises); a process gives one that is ended in time."""

    def __init__(self, begin: Learned, limits: Limits, learn: Callable[[Incremental, Named, float], None] = Incremental.learn) -> None:
        self.snapshot, self._limits, self._learn = begin, limits, learn
        self._back()

    def _back(self) -> None:
        """To the snapshot."""
        now = self.snapshot
        self._pipeline: Incremental = pickle.loads(now.pipeline)  # noqa: S301 - of our own training
        self._since: list[Lesson] = []
        self._left_out, self._keys, self._tail = dict(now.left_out), dict.fromkeys(now.keys), deque(now.tail, TAIL)
        self._failures, self._seq = 0, now.seq

    @property
    def learned(self) -> int:
        """Outcomes so far."""
        return self.snapshot.learned + len(self._since)

    @property
    def newest(self) -> PriorAnswer:
        """What it answered before it learned the newest outcome. Raises IndexError when it learned none."""
        return self._tail[-1]

    def take(self, lessons: Iterable[Lesson]) -> Iterator[Learned]:
        """Learns; gives each snapshot when it is due, and takes no lesson after one that says `stopped`."""
        for lesson in lessons:
            if self.snapshot.stopped:
                return
            if self._due(lesson):
                yield self.snapshot

    def _due(self, lesson: Lesson) -> bool:
        """Takes a lesson; whether there is a new snapshot."""
        if lesson.seq < self._seq:
            return False  # a result that was read before
        self._seq = lesson.seq + 1
        if lesson.key in self._keys:
            self._leave_out(REPEATED)
        elif lesson.row is None:
            self._leave_out("no logged inputs")
        elif lesson.label is None or not math.isfinite(lesson.label):
            self._leave_out("no value or class that the model knows")
        elif failed := self._failed(lesson, self._pipeline.known(lesson.row)):
            return self._again_without(failed)
        else:
            self._remember(lesson.key)
            self._since.append(lesson)
            if len(self._since) >= self._limits.every:
                return self._keep(lesson)
        return False

    def _failed(self, lesson: Lesson, row: Named) -> str:
        """Learns; says why it could not."""
        assert lesson.label is not None
        try:
            answer = self._pipeline.answer(row)
            self._learn(self._pipeline, row, lesson.label)
            after = self._pipeline.answer(row)
        except MemoryError:
            raise
        except Exception as error:  # whatever the project's pipeline raises
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        if not all(map(math.isfinite, [*answer, *after])):
            return "it answers NaN"
        self._tail.append(PriorAnswer(answer, lesson.label))
        return ""

    def _again_without(self, failed: str) -> bool:
        """After a lesson that may have been learned in part."""
        since, failures, seq = self._since, self._failures + 1, self._seq
        left_out, keys = self._left_out, self._keys
        if failures > MOST_FAILURES:
            return self._stop(f"{failures} outcomes could not be learned since {self.snapshot.learned:,} were: {failed}")
        self._back()
        for lesson in since:
            assert lesson.row is not None
            if again := self._failed(lesson, self._pipeline.known(lesson.row)):
                return self._stop(f"an outcome that was learned before fails now: {again}")
        self._since, self._failures, self._seq, self._left_out, self._keys = since, failures, seq, left_out, keys
        self._leave_out(f"the pipeline fails: {failed.partition(':')[0]}")
        return False

    def _keep(self, lesson: Lesson) -> bool:
        pickled = pickle.dumps(self._pipeline, protocol=5)
        if len(pickled) > self._limits.most_bytes:
            return self._stop(f"its pickle has {len(pickled):,} bytes; {self._limits.most_bytes:,} are allowed")
        self.snapshot = replace(
            self.snapshot, pipeline=pickled, applied=lesson.offset + 1, seq=self._seq, learned=self.learned, known=lesson.known,
            left_out=self._left_out, keys=list(self._keys), tail=list(self._tail),
        )  # fmt: skip
        self._back()
        return True

    def _stop(self, why: str) -> bool:
        self.snapshot = replace(self.snapshot, stopped=why)
        self._back()
        return True

    def _leave_out(self, why: str) -> None:
        self._left_out[why] = self._left_out.get(why, 0) + 1

    def _remember(self, key: int) -> None:
        self._keys[key] = None
        if len(self._keys) > REMEMBERED:
            del self._keys[next(iter(self._keys))]
