"""One server for all workers of a test run: who first wants it starts it, and stops it once nobody uses it any more."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tidemill.local.stack import Stack

_POLL_SECONDS = 0.1


class Shared:
    """A worker's part in the server of a folder: kafka or valkey.

    `users` is locked, shared, by every worker that uses the server; `starting` by whoever starts or stops it. A worker that dies leaves its locks.
    """

    def __init__(self, folder: Path, server: str = "kafka") -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._address, self._server = folder, folder / "address", server
        self._users: IO[str]
        self._own: Stack | None = None

    def join(self) -> str:
        """Return the address of the server, which was started here or by another worker."""
        with self._starting():
            self._users = (self._folder / "users").open("a")
            fcntl.flock(self._users, fcntl.LOCK_SH)
            if not self._address.exists():
                self._own = Stack(self._folder / "home", services=(), servers=(self._server,), timeout_seconds=300)
                self._own.start()
                self._address.write_text(self._own.kafka or self._own.redis_url)
            return self._address.read_text()

    def leave(self) -> None:
        """Use it no more. Who started it waits for all others, and stops it: it would end with its starter."""
        while self._own is not None:
            with self._starting():
                if self._alone():
                    self._address.unlink()
                    self._own.stop()
                    self._own = None
            time.sleep(_POLL_SECONDS if self._own else 0)
        self._users.close()

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._users, fcntl.LOCK_SH)  # a conversion that fails may lose the lock that was there
            return False
        return True

    @contextmanager
    def _starting(self) -> Iterator[None]:
        with (self._folder / "starting").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
