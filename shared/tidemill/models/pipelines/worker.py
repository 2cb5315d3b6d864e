"""The worker: `python -m tidemill.models.pipelines.worker SOCKET FILE PARENT` loads a pipeline and answers rows, until its parent closes the socket or ends."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.models.frame import frame
from tidemill.models.pipelines.wire import (
    ANSWER,
    EACH,
    FAILS,
    NO_MEMORY,
    QUESTION,
    Loading,
    read_block,
    received,
    send_block,
)
from tidemill.tied import tie

Rows = npt.NDArray[np.float32]
_NICE = 1  # the service that asks goes first


def main(descriptor: int, file: int, parent: int) -> None:
    """Load, then answer, until the socket is closed."""
    connection = socket.socket(fileno=descriptor)
    _end_with(parent, connection)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    try:
        with os.fdopen(os.dup(file), "rb") as stored:
            stored.seek(0)
            loading = msgspec.msgpack.decode(read_block(stored), type=Loading)
            _limit_memory(loading.memory_mb)
            answer = _answering(loading, read_block(stored))
    except BaseException as error:  # whatever the pickle's code raises, SystemExit too
        send_block(connection, _told(error).encode())
        return
    send_block(connection, b"")
    with contextlib.suppress(EOFError, ConnectionError):
        _answer_all(connection, len(loading.columns), answer)


def _end_with(parent: int, connection: socket.socket) -> None:
    """End when the parent closes the socket, and on Linux also when it ends while this process is busy outside Python."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent decides
    tie(parent)

    def watch() -> None:
        poll = select.poll()
        poll.register(connection, getattr(select, "POLLRDHUP", 0) | select.POLLHUP)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _limit_memory(megabytes: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a system without such a limit
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def _answering(loading: Loading, pickled: bytes) -> Callable[[Rows], Rows]:
    """A function from rows to answers, shape (rows, width). Raises what the pickle raises."""
    warnings.simplefilter("ignore")
    pipeline = _Unpickler(pickled, loading).load()
    ask = pipeline.predict if loading.output == "value" else pipeline.predict_proba

    def answer(rows: Rows) -> Rows:
        found = np.asarray(ask(frame(loading.columns, rows) if loading.frame else rows), np.float32)
        return np.ascontiguousarray(found.reshape(len(rows), loading.width))

    return _alone(answer)


def _alone(answer: Callable[[Rows], Rows]) -> Callable[[Rows], Rows]:
    """Without threads of joblib, whose sums may depend on which thread ends first."""
    try:
        from joblib import parallel_config  # noqa: PLC0415 - only where a pipeline brings it
    except ImportError:
        return answer

    def in_one_thread(rows: Rows) -> Rows:
        with parallel_config(backend="sequential"):
            return answer(rows)

    return in_one_thread


class _Unpickler(pickle.Unpickler):
    """Finds what the project defines in the project as it is loaded here, whatever its folder is called."""

    def __init__(self, pickled: bytes, loading: Loading) -> None:
        super().__init__(io.BytesIO(pickled))
        self._module, self._here = loading.module, ""
        if loading.project:
            from tidemill.declarations.project import load_project, module_of  # noqa: PLC0415 - most pipelines need no project

            load_project(loading.project)
            self._here = module_of(Path(loading.project))

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(self._here if self._here and module == self._module else module, name)


def _answer_all(connection: socket.socket, columns: int, answer: Callable[[Rows], Rows]) -> None:
    """Answers questions for ever. Raises EOFError when the parent has closed."""
    while True:
        how, count = QUESTION.unpack(received(connection, QUESTION.size))
        rows = np.frombuffer(received(connection, 4 * count * columns), np.float32).reshape(count, columns)
        for part in (rows[i : i + 1] for i in range(count)) if how == EACH else (rows,):
            send_block(connection, _answered(answer, part))


def _answered(answer: Callable[[Rows], Rows], rows: Rows) -> bytes:
    try:
        return bytes([ANSWER]) + answer(rows.copy()).tobytes()
    except MemoryError:
        return bytes([NO_MEMORY])
    except Exception as error:  # whatever the pipeline raises for these rows
        return bytes([FAILS]) + _told(error).encode()


def _told(error: BaseException) -> str:
    """An error in one line, with the place in the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}{place}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
