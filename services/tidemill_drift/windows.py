"""Windows of event time, and when one is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tidemill_drift.sample import Sample

T = TypeVar("T")
Key = tuple[str, str, int]  # model, version, start in ms

MOST_ROWS = 50_000
"""Rows kept of one window: far more than any comparison needs, and a bound on memory."""


@dataclass
class Windows(Generic[T]):
    """Rows by model version and window. A window is closed once the stream's time has passed its end by `grace_ms`; what comes later is late.

    The partitions of the source move the stream's time: it is the slowest of those that still lag, so that a partition that is read later
    does not lose its windows to one that was read first. `closed_ms`: end of the last window that was closed.
    """

    length_ms: int
    grace_ms: int
    closed_ms: int = 0
    _rows: dict[Key, Sample[T]] = field(default_factory=dict)
    _first: dict[int, dict[int, int]] = field(default_factory=dict)  # window start -> partition -> first offset
    _times: dict[int, int] = field(default_factory=dict)  # partition -> newest time

    def tick(self, partition: int, now_ms: int) -> None:
        """Moves the stream's time by the time of a record of a partition."""
        self._times[partition] = max(self._times.get(partition, now_ms), now_ms)

    def add(self, version: tuple[str, str], time_ms: int, id: str, row: T, place: tuple[int, int]) -> bool:
        """Puts a row of a model version into the window of `time_ms`. `place`: partition and offset. False: it is late."""
        start = time_ms // self.length_ms * self.length_ms
        if start + self.length_ms <= self.closed_ms:
            return False
        self._rows.setdefault((*version, start), Sample(MOST_ROWS)).add(id, row)
        self._first.setdefault(start, {}).setdefault(*place)
        return True

    def complete(self, lagging: set[int]) -> list[tuple[Key, list[T]]]:
        """Takes out the windows that are complete, in order of time. `lagging`: partitions with records not yet read."""
        if not self._times or lagging - self._times.keys():
            return []
        time_ms = min((self._times[p] for p in lagging), default=max(self._times.values()))
        done = sorted((key for key in self._rows if key[2] + self.length_ms + self.grace_ms <= time_ms), key=lambda key: (key[2], key))
        for key in done:
            self.closed_ms = max(self.closed_ms, key[2] + self.length_ms)
            self._first.pop(key[2], None)
        return [(key, self._rows.pop(key).rows()) for key in done]

    def resume_at(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Where to read from after a restart: the first record of any open window, else the position."""
        firsts: dict[int, int] = {}
        for offsets in self._first.values():
            for partition, offset in offsets.items():
                firsts[partition] = min(offset, firsts.get(partition, offset))
        return {partition: firsts.get(partition, offset) for partition, offset in positions.items()}
