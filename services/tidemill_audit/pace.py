"""How much the audit may do: a share of one processor, and so many rows of a partition in a round."""

from __future__ import annotations

import time

LEAST_ROWS = 1_000
_GUESS_ROWS = 20_000  # rows that one second of a processor compares, until it has been measured
_LONGEST_PAUSE_SECONDS = 5.0  # what is owed is paid in such portions, between which there are signs of life


class Pace:
    """`share` of one processor, in rounds of `period_seconds` over `partitions`.

    A partition of up to `rows` rows is compared whole, a larger one by entities that have so many. What a row costs is measured as it goes.
    """

    def __init__(self, share: float, period_seconds: float, partitions: int) -> None:
        self._share = share
        self._seconds = share * period_seconds / max(1, partitions)
        self._rows_per_second = float(_GUESS_ROWS)
        self._used, self._debt_seconds = time.process_time(), 0.0

    @property
    def rows(self) -> int:
        """How many rows of one partition the share allows for in a round."""
        return max(LEAST_ROWS, int(self._seconds * self._rows_per_second))

    def owed_seconds(self) -> float:
        """How long to rest for what was used so far."""
        now = time.process_time()
        self._debt_seconds += (now - self._used) * (1 / self._share - 1)
        self._used = now
        return self._debt_seconds

    def rest(self) -> None:
        """Rests for what is owed, up to five seconds of it."""
        seconds = min(self.owed_seconds(), _LONGEST_PAUSE_SECONDS)
        time.sleep(seconds)
        self.rested(seconds)

    def rested(self, seconds: float) -> None:
        """Takes note of a rest."""
        self._debt_seconds = max(0.0, self._debt_seconds - seconds)

    def learn(self, rows: int, cpu_seconds: float) -> None:
        """Takes a measurement in: the estimate moves half of the way. One of few rows tells of the overhead only."""
        if rows >= LEAST_ROWS and cpu_seconds > 0:
            self._rows_per_second += 0.5 * (rows / cpu_seconds - self._rows_per_second)
