"""One worker process, as the thread sees it that started it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import BinaryIO

from tidemill.models.pipelines.wire import QUESTION, received_block
from tidemill.signals import signal_told

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")
_SAME_ORDER = {"PYTHONHASHSEED": "0"}  # of sets of texts: a sum in another order has other last digits
_REAP_SECONDS = 5.0


class WorkerGone(Exception):
    """A worker ended, or was ended; `kind`: "hangs", "ended" or "memory", and in words what happened."""

    def __init__(self, kind: str, told: str) -> None:
        super().__init__(told)
        self.kind = kind


class WorkerProcess:
    """A worker that was just started, and loads. One thread uses it, the one that started it: the kernel ends the worker with that thread."""

    def __init__(self, file: BinaryIO) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = (theirs.fileno(), file.fileno())
            command = [sys.executable, "-P", "-m", "tidemill.models.pipelines.worker", *map(str, (*descriptors, os.getpid()))]
            paths = os.pathsep.join(path for path in sys.path if path)
            environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), **_SAME_ORDER, "PYTHONPATH": paths}
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=sys.__stderr__ or subprocess.DEVNULL
            )
        self._connection = ours
        self.loaded = False
        self.since = time.monotonic()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def wait_loaded(self, seconds: float) -> None:
        """Waits so long for it to have loaded; see `loaded`. Raises WorkerGone when it cannot."""
        self._connection.settimeout(seconds)
        try:
            told = received_block(self._connection).decode()
        except TimeoutError:
            return
        except (EOFError, OSError):
            raise self._gone() from None
        if told:
            raise WorkerGone("ended", told)
        self.loaded = True

    def ask(self, how: int, count: int, rows: bytes, seconds: float) -> None:
        """Sends rows. Raises WorkerGone."""
        self._connection.settimeout(seconds)
        try:
            self._connection.sendall(QUESTION.pack(how, count) + rows)
        except TimeoutError:
            raise WorkerGone("hangs", f"it took no rows for {seconds:g} s") from None
        except OSError:
            raise self._gone() from None

    def answer(self, seconds: float) -> bytes:
        """The next answer. Raises WorkerGone when there is none in time, or the worker ended."""
        self._connection.settimeout(seconds)
        try:
            return received_block(self._connection)
        except TimeoutError:
            raise WorkerGone("hangs", f"it gave no answer within {seconds:g} s") from None
        except (EOFError, OSError):
            raise self._gone() from None

    def terminate(self) -> None:
        """Begins its end; any thread may."""
        self._process.kill()

    def kill(self) -> None:
        """Ends it at once, and waits for that."""
        self._process.kill()
        self._connection.close()
        self._process.wait()

    def _gone(self) -> WorkerGone:
        try:
            code = self._process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return WorkerGone("ended", "it closed its connection")
        return gone(code)


def gone(code: int) -> WorkerGone:
    """What is known of a worker that ended by itself. `code`: as `subprocess` gives it."""
    if code >= 0:
        return WorkerGone("ended", f"its process ended with code {code}")
    return WorkerGone("ended", f"its process was ended by {signal_told(-code)}")
