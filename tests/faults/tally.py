"""What is wrong: counts, all 0 when nothing is, and a line about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

COUNTS = ("lost", "doubled", "different", "predictions_missing", "predictions_doubled")
_SHOWN_CHARACTERS = 600


class Tally:
    """Counts of what is wrong. `findings`: in words, the first few of each kind."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(COUNTS, 0))
        self.findings: list[str] = []
        self._said: Counter[str] = Counter()

    def add(self, count: str, what: str, found: Iterable[object]) -> None:
        """Adds one for each thing found, and shows the first few."""
        items = list(found)
        if items:
            self.counts[count] += len(items)
            self._said[what] += 1
            if self._said[what] <= 3:
                self.findings.append(f"{count}: {what}: {len(items)}, such as {items[:3]}"[:_SHOWN_CHARACTERS])

    def merge(self, counts: dict[str, int], findings: list[str]) -> None:
        """Takes over what another process found."""
        self.counts.update(counts)
        self.findings += findings
