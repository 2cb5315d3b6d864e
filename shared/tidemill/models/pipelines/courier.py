"""The thread that has a worker: it starts it, brings it rows, and starts another when it hangs or has ended."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from tidemill.models.pipelines.failures import EngineUnavailable
from tidemill.models.pipelines.process import WorkerGone, WorkerProcess
from tidemill.models.pipelines.queue import AskedRows, RowQueue
from tidemill.models.pipelines.wire import NO_MEMORY, WHOLE, write_block

START_SECONDS = 120.0
WHOLE_TIMES = 10  # as long as a row may take, all rows by one call may take so many times
MEMORY_MB = 4096
_LOOK_SECONDS = 0.5
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # before another start, after so many in a row that failed


class Terms(NamedTuple):
    """How a worker is treated. `seconds`: within which a row must be answered; `memory_mb`: what it may map; `idle_seconds`: after which without
    a question it ends until the next one (None: never); `told`: gets the kind of each failure ("hangs", "ended", "memory") and what happened."""

    seconds: float = 60.0
    memory_mb: int = MEMORY_MB
    idle_seconds: float | None = None
    told: Callable[[str, str], None] = lambda _kind, _told: None


class _Told(Exception):
    """A worker is gone, and who asked knows it."""


class Courier:
    """Runs until `close`. `loading`, `pickled`: what the worker gets."""

    def __init__(self, label: str, loading: bytes, pickled: bytes, terms: Terms) -> None:
        self.queue = RowQueue(label)
        self.first = threading.Event()
        """Set once the first worker has loaded, or cannot."""
        self.refused = ""
        """Why the first worker cannot load."""
        self.failures = 0
        self.idle_seconds = terms.idle_seconds
        """See `Terms`; another thread may change it."""
        self.pid: int | None = None
        self._label, self._terms = label, terms
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as workers are started
        write_block(self._file, loading)
        write_block(self._file, pickled)
        self._file.flush()
        self._process: WorkerProcess | None = None
        self._in_a_row, self._tried, self._used = 0, 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"worker of {label}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the worker, and soon the thread."""
        self.queue.close()
        process = self._process
        if process is not None:
            process.terminate()

    def join(self) -> None:
        """Waits until the thread has ended, after `close`."""
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self.queue.closed:
                try:
                    self._turn()
                except _Told:
                    self._lost()
                except WorkerGone as gone:
                    self._failed(gone)
        finally:
            self._end()
            self.queue.close()
            self._file.close()
            self.first.set()

    def _turn(self) -> None:
        """One step. Raises WorkerGone."""
        if self._process is None:
            self._start()
        elif not self._process.loaded:
            self._load(self._process)
        elif batch := self.queue.take(_LOOK_SECONDS):
            self._used = time.monotonic()
            self._bring(self._process, batch)
        elif not self._process.alive:
            self._process.answer(0.0)  # raises, and says how it ended
        elif self.idle_seconds is not None and time.monotonic() - self._used > self.idle_seconds:
            self._end()

    def _start(self) -> None:
        if self.idle_seconds is not None and self.first.is_set():  # it ended since nothing was asked
            batch = self.queue.take(_LOOK_SECONDS)
            if not batch:
                return
            self.queue.put_back(batch)
        pause = _PAUSES[min(self._in_a_row, len(_PAUSES) - 1)]
        if time.monotonic() - self._tried < pause:
            self._drop_late()
            time.sleep(0.05)
            return
        self._tried = time.monotonic()
        try:
            self._process = WorkerProcess(self._file)
        except OSError as error:
            raise WorkerGone("ended", f"its process cannot be started: {error}") from error
        self.pid = self._process.pid

    def _load(self, process: WorkerProcess) -> None:
        process.wait_loaded(0.05)
        if process.loaded:
            self._used = time.monotonic()
            self.first.set()
        elif time.monotonic() - process.since > START_SECONDS:
            raise WorkerGone("hangs", f"it did not load within {START_SECONDS:g} s")
        else:
            self._drop_late()

    def _bring(self, process: WorkerProcess, batch: list[AskedRows]) -> None:
        """Brings rows to the worker, and their answers back. Raises _Told when one of them ended it; those after that one wait again."""
        late = time.monotonic() - self._terms.seconds
        for asked in batch:
            if asked.since < late:
                asked.fail(self._late())
        batch = [asked for asked in batch if asked.since >= late and not asked.future.cancelled()]
        if not batch:
            return
        seconds = self._terms.seconds * (WHOLE_TIMES if batch[0].how == WHOLE else 1)
        for place, asked in enumerate(batch):
            try:
                if not place:
                    process.ask(asked.how, sum(one.count for one in batch), b"".join(one.rows for one in batch), seconds)
                answer = process.answer(seconds)
                if answer[0] == NO_MEMORY:
                    raise WorkerGone("memory", f"it needs more than its {self._terms.memory_mb:,} MB")
            except WorkerGone as gone:
                self.queue.put_back(batch[place + 1 :])
                self._terms.told(gone.kind, str(gone))  # before who asked can see it
                asked.fail(EngineUnavailable(self._label, str(gone), kind=gone.kind))
                raise _Told from gone
            asked.give(answer)
            self._in_a_row = 0

    def _late(self) -> EngineUnavailable:
        return EngineUnavailable(self._label, f"its worker had no time for this request within {self._terms.seconds:g} s")

    def _drop_late(self) -> None:
        self.queue.drop(self._late(), self._terms.seconds)

    def _failed(self, gone: WorkerGone) -> None:
        """The worker is of no more use. Another one is started; the first must load at once, or never."""
        if self.queue.closed:
            return
        if self.first.is_set():
            self._terms.told(gone.kind, str(gone))
        else:
            self.refused = str(gone)
            self.queue.close()
        self._lost()

    def _lost(self) -> None:
        self._end()
        self.failures, self._in_a_row = self.failures + 1, self._in_a_row + 1

    def _end(self) -> None:
        process, self._process, self.pid = self._process, None, None
        if process is not None:
            process.kill()
