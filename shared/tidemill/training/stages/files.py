"""The folder of a run: files that are there whole or not at all, and a lock that ends with the process that holds it.

It is a folder of this machine, since it holds pickled pipelines, which are code: `training/<model>/<run>/` below a local offline store, below
`.tidemill` if the offline store is an object store.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"


def runs_root(offline_root: str) -> Path:
    """The folder of the runs of all models."""
    return (Path(".tidemill") if "://" in offline_root else Path(offline_root)) / "training"


def digest_of(content: bytes) -> str:
    """The SHA-256 of a content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class RunFiles:
    """The files of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def make(self, first: str) -> bool:
        """Makes the folder, and holds it; False when it is another's. `first`: what its maker writes first. A folder without it is of a process that was
        ended before it could, and is taken over: the run that it was made for may be asked for again, by its name."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if not self.hold():
            return False
        if self.read(first) is None:
            return True
        self.release()
        return False

    def hold(self) -> bool:
        """Holds the folder until `release`, or the end of the process. False when another process holds it."""
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def release(self) -> None:
        """Lets others hold the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, name: str) -> bytes | None:
        """A file's content; None when there is none."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a file. After a crash of the process or of the machine it is there whole, or as it was before."""
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        """Deletes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / name).unlink()


def folders_of(offline_root: str, model: str) -> Iterator[Path]:
    """The folders of a model's runs, the newest first."""
    root = runs_root(offline_root) / model
    yield from sorted((path for path in root.iterdir() if path.is_dir()), reverse=True) if root.is_dir() else ()
