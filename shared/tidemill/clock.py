"""Time: the wall clock in epoch milliseconds for data, and a monotonic deadline for waiting."""

from __future__ import annotations

import time


def now_ms() -> int:
    """The wall clock, as whole milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


class Deadline:
    """A time budget shared by nested calls, on the monotonic clock. `Deadline(None)` never expires."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    @property
    def expired(self) -> bool:
        """Whether the time is over."""
        return self._at is not None and time.monotonic() >= self._at
