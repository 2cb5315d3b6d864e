"""Rows that wait for a worker: a bounded queue between those who ask and the one thread that has the worker."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.models.pipelines.wire import EACH

MOST = 1_000
BATCH = 32


class AskedRows:
    """Rows, how they are to be answered, and the future that gets the bytes of the answer."""

    __slots__ = ("count", "future", "how", "rows", "since")

    def __init__(self, how: int, count: int, rows: bytes) -> None:
        self.how, self.count, self.rows = how, count, rows
        self.since = time.monotonic()
        self.future: Future[bytes] = Future()

    def give(self, answer: bytes) -> None:
        """Gives the answer to who waits; who waits no more is passed over."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Gives an error instead."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class RowQueue:
    """`label` names the model in errors."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._waiting: deque[AskedRows] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def put(self, asked: AskedRows) -> None:
        """Lets rows wait. Raises EngineUnavailable when too many do."""
        with self._changed:
            if self.closed:
                raise self._released()
            if len(self._waiting) >= MOST:
                raise EngineUnavailable(self._label, f"{MOST:,} requests wait for its worker already")
            self._waiting.append(asked)
            self._changed.notify()

    def take(self, seconds: float) -> list[AskedRows]:
        """Those that wait the longest: up to 32 that are answered row by row, or one that is answered whole. Nothing when none comes in so
        many seconds, or the queue is closed."""
        with self._changed:
            if not self._waiting and not self.closed:
                self._changed.wait(seconds)
            if self.closed or not self._waiting:
                return []
            found = [self._waiting.popleft()]
            while found[0].how == EACH and self._waiting and self._waiting[0].how == EACH and len(found) < BATCH:
                found.append(self._waiting.popleft())
            return found

    def put_back(self, rest: Sequence[AskedRows]) -> None:
        """Lets rows that were taken and not asked wait again, before all others."""
        with self._changed:
            self._waiting.extendleft(reversed(rest))
            closed = self.closed
        if closed:
            self.drop(self._released())

    def drop(self, error: Exception, older_than: float = 0.0) -> None:
        """Fails those that have waited so many seconds."""
        with self._changed:
            before = time.monotonic() - older_than
            gone = [asked for asked in self._waiting if asked.since <= before]
            self._waiting = deque(asked for asked in self._waiting if asked.since > before)
        for asked in gone:
            asked.fail(error)

    def close(self) -> None:
        """No more rows; those that wait are failed."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self.drop(self._released())

    def _released(self) -> EngineUnavailable:
        return EngineUnavailable(self._label, "its worker was released", mend="ask again")
