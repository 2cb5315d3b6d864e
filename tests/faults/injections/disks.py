"""Small file systems that can be filled up: tmpfs, where mounting is allowed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_BALLAST = "ballast"


@cache
def cannot_mount(folder: Path) -> str | None:
    """Why no file system can be mounted in this folder, or None."""
    if os.geteuid() != 0:
        return "mounting needs root"
    probe = folder / "probe"
    probe.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", probe], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        subprocess.run(["umount", probe], check=True)
    probe.rmdir()
    return made.stderr.strip() if made.returncode else None


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size at this folder, for as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[int]:
    """No byte is free in a small disk, for as long as the context lasts. Gives how many bytes were free."""
    assert os.path.ismount(folder), f"{folder} is no file system of its own: it is not to be filled"
    ballast = folder / _BALLAST
    free = os.statvfs(folder)
    size_bytes = free.f_bavail * free.f_frsize
    try:
        with ballast.open("wb", buffering=0) as file, _until_full():
            while True:
                file.write(b"\0" * 65536)
        yield size_bytes
    finally:
        ballast.unlink(missing_ok=True)


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != 28:
            raise
