"""What every process uses over a run: memory, open files, threads; and how many files the offline tables have."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec
import psutil
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

GROWTH_SHARE, GROWTH_MB = 0.5, 400  # a run begins with empty stores, and Arrow keeps the memory it once had
MOST_FILES, MOST_THREADS, MOST_OPEN = 400, 600, 500  # the runtime below Delta has up to 512 threads that wait for disks


class Usage(msgspec.Struct):
    """The most that a process, over all its restarts, was seen to use; and its memory in the first and the last third of the run."""

    rss_mb: float
    open_files: int
    threads: int
    early_mb: float
    late_mb: float


class Resources:
    """Looks at processes now and then. The broker's memory is bounded by its own settings."""

    def __init__(self, offline: Path) -> None:
        self._offline = offline
        self._seen: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        self.table_files = 0

    def look(self, pids: dict[str, int]) -> None:
        """Notes what these processes use now."""
        for name, pid in pids.items():
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    entry = (process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())
            except psutil.Error:
                continue
            self._seen[name].append(entry)

    def look_at_tables(self) -> None:
        """Notes how many files the largest table consists of now; one that cannot be read at the moment is left out."""
        for folder in self._offline.glob("**/_delta_log"):
            with suppress(DeltaError, OSError):
                self.table_files = max(self.table_files, len(DeltaTable(folder.parent).file_uris()))

    def usage(self) -> dict[str, Usage]:
        """By process."""
        found = {}
        for name, entries in self._seen.items():
            rss = [entry[0] for entry in entries]
            third = max(1, len(rss) // 3)
            found[name] = Usage(
                round(max(rss), 1), max(entry[1] for entry in entries), max(entry[2] for entry in entries),
                round(median(rss[:third]), 1), round(median(rss[-third:]), 1),
            )  # fmt: skip
        return found

    def excesses(self) -> list[str]:
        """What grew without bound, or uses too much, in words."""
        said = []
        for name, usage in self.usage().items():
            if name != "kafka" and usage.late_mb > usage.early_mb * (1 + GROWTH_SHARE) + GROWTH_MB:
                said.append(f"{name} grew from {usage.early_mb} to {usage.late_mb} MB")
            if name not in ("kafka", "valkey") and (usage.open_files > MOST_OPEN or usage.threads > MOST_THREADS):
                said.append(f"{name} has {usage.open_files} open files and {usage.threads} threads")
        if self.table_files > MOST_FILES:
            said.append(f"a table of the offline store has {self.table_files} files")
        return said
