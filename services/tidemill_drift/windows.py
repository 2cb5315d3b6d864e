"""Windows of event time, when one is complete, and which are joined since they have too few rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Generic, NamedTuple, TypeVar

from tidemill_drift.sample import Sample

T = TypeVar("T")
Version = tuple[str, str]  # model, version
Key = tuple[str, str, int]  # model, version, start in ms

MOST_ROWS = 50_000
"""Rows kept of one window: far more than any comparison needs, and a bound on memory."""
MOST_JOINED = 12
"""How many windows are joined at most; the oldest one is left out then."""


class Closed(NamedTuple, Generic[T]):
    """The rows of a version from `start` to `end`. `versions`: how many versions, of all models, have rows in the newest of these windows; `lacks`: why
    they cannot be judged (empty: they can); `waits`: they are joined with the next window; `gone`: the version is not judged at all."""

    model: str
    version: str
    start: int
    end: int
    rows: list[T]
    versions: int
    lacks: str = ""
    waits: bool = False
    gone: bool = False


def _nothing(_version: Version) -> str:
    return ""


@dataclass
class Windows(Generic[T]):
    """Rows by model version and window. A window is closed once the stream's time has passed its end by `grace_ms`; what comes later is late.

    The partitions of the source move the stream's time: it is the slowest of those that still lag, so that a partition that is read later
    does not lose its windows to one that was read first. `closed_ms`: end of the last window that was closed. `lacks` says what rows lack to be
    judged; then they are joined with the version's next window. `gone` says why a version is not judged at all. `since`: from where a version's rows
    were not judged yet, though their windows were closed; that far back a row is not late.
    """

    length_ms: int
    grace_ms: int
    closed_ms: int = 0
    lacks: Callable[[list[T]], str] = lambda _rows: ""
    gone: Callable[[Version], str] = _nothing
    since: dict[Version, int] = field(default_factory=dict)
    _rows: dict[Key, Sample[T]] = field(default_factory=dict)
    _first: dict[Key, dict[int, int]] = field(default_factory=dict)  # window -> partition -> first offset
    _times: dict[int, int] = field(default_factory=dict)  # partition -> newest time

    def tick(self, partition: int, now_ms: int) -> None:
        """Moves the stream's time by the time of a record of a partition."""
        self._times[partition] = max(self._times.get(partition, now_ms), now_ms)

    def add(self, version: Version, time_ms: int, id: str, row: T, place: tuple[int, int]) -> bool:
        """Puts a row of a model version into the window of `time_ms`. `place`: partition and offset. False: it is late."""
        start = time_ms // self.length_ms * self.length_ms
        if start + self.length_ms <= self.closed_ms and start < self.since.get(version, self.closed_ms):
            return False
        key = *version, start
        self._rows.setdefault(key, Sample(MOST_ROWS)).add(id, row)
        self._first.setdefault(key, {}).setdefault(*place)
        return True

    def complete(self, lagging: set[int]) -> list[Closed[T]]:
        """Takes out the windows that are complete, in order of time; rows that wait for the next window stay. `lagging`: partitions with records not
        yet read."""
        if not self._times or lagging - self._times.keys():
            return []
        time_ms = min((self._times[p] for p in lagging), default=max(self._times.values()))
        limit = time_ms - self.length_ms - self.grace_ms
        done = sorted((key for key in self._rows if self.closed_ms - self.length_ms < key[2] <= limit), key=lambda key: (key[2], key))
        closed = list[Closed[T]]()
        for start, keys in groupby(done, key=lambda key: key[2]):
            versions = [key[:2] for key in keys]
            self.closed_ms = max(self.closed_ms, start + self.length_ms)
            closed += [self._close(version, start, len(versions)) for version in versions]
        self._forget()
        return closed

    def _close(self, version: Version, start: int, versions: int) -> Closed[T]:
        """The rows of a version up to a window that is complete."""
        oldest = start - (MOST_JOINED - 1) * self.length_ms
        starts = sorted(key[2] for key in self._rows if key[:2] == version and oldest <= key[2] <= start)
        sample = Sample[T](MOST_ROWS)
        for one in starts:
            sample.join(self._rows[*version, one])
        rows, gone = sample.rows(), self.gone(version)
        lacks = gone or self.lacks(rows)
        waits = bool(lacks) and not gone and len(rows) < MOST_ROWS
        if waits:
            self.since[version] = starts[0]
        else:
            self._drop(version, start + self.length_ms)
        return Closed(*version, starts[0], start + self.length_ms, rows, versions, lacks, waits, bool(gone))

    def _forget(self) -> None:
        """Leaves out rows that wait and are too old to be joined with any window to come."""
        oldest = self.closed_ms - (MOST_JOINED - 1) * self.length_ms
        for version in [version for version, start in self.since.items() if start < oldest]:
            self._drop(version, oldest)
            if any(key[:2] == version and key[2] < self.closed_ms for key in self._rows):
                self.since[version] = oldest

    def _drop(self, version: Version, before: int) -> None:
        """Takes out the rows of a version's windows that begin before a moment."""
        for key in [key for key in self._rows if key[:2] == version and key[2] < before]:
            del self._rows[key], self._first[key]
        self.since.pop(version, None)

    def resume_at(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Where to read from after a restart: the first record of any window that is open or waits, else the position."""
        firsts: dict[int, int] = {}
        for offsets in self._first.values():
            for partition, offset in offsets.items():
                firsts[partition] = min(offset, firsts.get(partition, offset))
        return {partition: firsts.get(partition, offset) for partition, offset in positions.items()}
