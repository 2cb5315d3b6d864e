"""The time of a view's log at each of its records, from rows: what the fold knows from record to record (kernel/recent.py)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tidemill.declarations import FeatureView
from tidemill.kernel.recent import PARTS, Turn, part_ms

Ints = npt.NDArray[np.int64]


class LogTimes:
    """The parts of the log's time of one partition, for a view that remembers ids for a time. In memory there is one number pair for each."""

    def __init__(self, view: FeatureView) -> None:
        assert view.dedupe_ms is not None
        self._part_ms = part_ms(view.dedupe_ms)
        self._parts = self._begins = np.empty(0, np.int64)

    def take(self, offsets: Ints, known_ms: Ints) -> None:
        """Reads the next usable rows, in order of offset."""
        last = self._parts[-1] if len(self._parts) else -1
        newest = np.maximum.accumulate(np.concatenate(([last], known_ms // self._part_ms)))
        begun = newest[1:] > newest[:-1]
        self._parts = np.concatenate((self._parts, newest[1:][begun]))
        self._begins = np.concatenate((self._begins, offsets[begun]))

    @property
    def turns(self) -> list[Turn]:
        """Those that a fence has after these rows."""
        pairs = zip(self._parts.tolist(), self._begins.tolist(), strict=True)
        return [(part, begin) for part, begin in pairs if part >= self._parts[-1] - PARTS]

    def at_ms(self, offsets: Ints) -> Ints:
        """The time of the log at these offsets of usable rows, in ms: where its part begins."""
        found: Ints = np.append(self._parts, 0)[np.searchsorted(self._begins, offsets, side="right") - 1] * self._part_ms
        return found
