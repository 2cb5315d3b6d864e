"""How much the audit may do: a share of one processor, and from that a number of rows of a partition in a round."""

from __future__ import annotations

import time

LEAST_ROWS = 1_000
_GUESS_ROWS = 20_000  # rows that one second of a processor compares, until it has been measured
_LONGEST_PAUSE_SECONDS = 5.0  # a longer rest is taken in such portions, with a sign of life between them


class Pace:
    """`share` of one processor, in rounds of `period_seconds` over `partitions`.

    A partition of up to `rows` rows is compared whole, a larger one by entities that have about `rows` rows together.
    The cost of a row is measured all the time.
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
        """How long to rest for the processor time used so far."""
        now = time.process_time()
        self._debt_seconds += (now - self._used) * (1 / self._share - 1)
        self._used = now
        return self._debt_seconds

    def rest(self) -> None:
        """Rests for the time owed, at most five seconds."""
        seconds = min(self.owed_seconds(), _LONGEST_PAUSE_SECONDS)
        time.sleep(seconds)
        self.rested(seconds)

    def rested(self, seconds: float) -> None:
        """Takes note of a rest."""
        self._debt_seconds = max(0.0, self._debt_seconds - seconds)

    def learn(self, rows: int, cpu_seconds: float) -> None:
        """Takes a measurement: the estimate moves half of the way to it. One of few rows is left out: it shows only the overhead."""
        if rows >= LEAST_ROWS and cpu_seconds > 0:
            self._rows_per_second += 0.5 * (rows / cpu_seconds - self._rows_per_second)
