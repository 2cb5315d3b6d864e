"""Windows of event time, and when one is complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Key = tuple[str, str, int]  # model, version, start in ms


@dataclass
class Windows(Generic[T]):
    """Records by model version and window. A window is closed once the stream's time has passed its end by `grace_ms`; what comes later is late.

    `partitions` of the source move the stream's time: it is the slowest of those that are still behind, so that a partition read later does
    not lose its windows to one that was read first.
    """

    length_ms: int
    grace_ms: int
    closed_ms: int = 0
    late: int = 0
    _records: dict[Key, list[T]] = field(default_factory=dict)
    _first: dict[int, dict[int, int]] = field(default_factory=dict)  # window start -> partition -> first offset
    _times: dict[int, int] = field(default_factory=dict)  # partition -> newest time

    def add(self, model: str, version: str, time_ms: int, now_ms: int, record: T, partition: int, offset: int) -> None:
        """Puts a record into the window of `time_ms`; `now_ms` is what it says of the stream's time."""
        start = time_ms // self.length_ms * self.length_ms
        self._times[partition] = max(self._times.get(partition, now_ms), now_ms)
        if start + self.length_ms <= self.closed_ms:
            self.late += 1
            return
        self._records.setdefault((model, version, start), []).append(record)
        self._first.setdefault(start, {}).setdefault(partition, offset)

    def complete(self, behind: set[int]) -> list[tuple[Key, list[T]]]:
        """Takes out the windows that are complete, in order of time. `behind`: partitions with records not yet read."""
        if not self._times or behind - self._times.keys():
            return []
        time_ms = min((self._times[p] for p in behind), default=max(self._times.values()))
        done = sorted((key for key in self._records if key[2] + self.length_ms + self.grace_ms <= time_ms), key=lambda key: (key[2], key))
        for key in done:
            self.closed_ms = max(self.closed_ms, key[2] + self.length_ms)
            self._first.pop(key[2], None)
        return [(key, self._records.pop(key)) for key in done]

    def resume_at(self, positions: dict[int, int]) -> dict[int, int]:
        """Where to read from after a restart: the first record of any open window, else the position."""
        firsts: dict[int, int] = {}
        for offsets in self._first.values():
            for partition, offset in offsets.items():
                firsts[partition] = min(offset, firsts.get(partition, offset))
        return {partition: firsts.get(partition, offset) for partition, offset in positions.items()}
