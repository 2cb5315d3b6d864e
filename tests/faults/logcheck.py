"""One partition of a view: its log folded beside the system, what the online store shows compared with it to the bit, each event counted."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.faults.oracle import Naive, differing
from tests.faults.tally import Tally

from tidemill.declarations import FeatureView
from tidemill.errors import CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import Reading, ViewKernel

Ints = npt.NDArray[Any]
_OWN = ("until", "builder", "built")  # of a store that is being rebuilt, or was: nothing that the log could say
_LATER_MS = (0, 7_000, 200_000)
_LATE, _FOLDED = 1, 2
_FILL = 2**33
"""The source partition of records that were made from archived events."""


class PartitionCheck:
    """Folds the log of one partition, twice: as tidemill does, and the naive way. `proofs`: CRC of every record, by offset."""

    def __init__(self, view: FeatureView, kernel: ViewKernel, partition: int, tally: Tally) -> None:
        self.view, self.kernel, self.partition, self._tally = view, kernel, partition, tally
        self.name = f"{view.name}[{partition}]"
        self.naive = Naive(view)
        self.proofs = array("I")
        self.seen: dict[int, bytearray] = defaultdict(bytearray)
        self._decode = entry_decoder(view)
        self._fold = PartitionFold.start(kernel)
        self._states: dict[bytes, EntityState] = {}
        self._filled = (-1, 0)  # number and known time of the last record that was made from an archived event
        self._live = False

    @property
    def next(self) -> int:
        """Everything below is folded."""
        return self._fold.fence.next

    @property
    def entities(self) -> list[bytes]:
        """All that the log tells of."""
        return list(self._states)

    def advance(self, records: Sequence[Any]) -> None:
        """Folds the next records of the topic."""
        entries = [self._decode(record.offset, record.key, record.value) for record in records]
        expected = range(self.next, self.next + len(entries))
        if [entry.offset for entry in entries] != list(expected):
            self._tally.add("different", f"{self.name}: the topic's offsets are not dense", [(expected, entries[0].offset)])
        for entry in entries:
            self.proofs.append(entry.proof)
            self._check_order(entry)
            outcome = self.naive.apply(entry)
            if outcome in ("folded", "late") and entry.record is not None:
                self._count(entry.record.id or "", folded=outcome == "folded")
        self._fold.advance(entries, self._states)

    def _check_order(self, entry: LogEntry) -> None:
        """A log that was filled begins with archived events in the order in which they became known; no event of a topic comes before them."""
        if entry.record is None:
            return
        partition, number = entry.record.source
        if partition != _FILL:
            self._live = True
            return
        here = (number, entry.record.known)
        if self._live or number <= self._filled[0] or entry.record.known < self._filled[1]:
            self.tell("different", "the order of archived events (offset, before, here)", [(entry.offset, self._filled, here)])
        self._filled = here

    def _count(self, event: str, *, folded: bool) -> None:
        """Notes that an event is here. What came too late changed nothing, and is not remembered: it may be here twice."""
        producer, _, number = event.partition("-")
        seen, place = self.seen[int(producer)], int(number)
        if place >= len(seen):
            seen.extend(bytes(max(place + 1 - len(seen), len(seen))))
        if seen[place] == _FOLDED and folded:
            self._tally.add("doubled", f"{self.name}: events", [event])
        seen[place] = max(seen[place], _FOLDED if folded else _LATE)

    def judge(self, fence: Fence | None, values: Mapping[bytes, bytes | None], naively: int = 2) -> None:
        """Compares a fence, which must be where the fold is, and values that were read with it in one command; so many of them the naive way too."""
        mine = self._fold.fence
        if fence is not None:
            names = [name for name in fence.__struct_fields__ if name not in _OWN and getattr(fence, name) != getattr(mine, name)]
            self._tally.add("different", f"{self.name}: fence at {mine.next}", [(n, getattr(fence, n), getattr(mine, n)) for n in names])
        for place, (key, value) in enumerate(values.items()):
            self._compare(key, value, naively=place < naively)

    def _compare(self, key: bytes, value: bytes | None, *, naively: bool) -> None:
        state = self._states.get(key)
        expected = None if state is None else self.kernel.encode(state)
        where = f"{self.name}: entity"
        if value != expected:
            self._tally.add("different", where, [(key, self.next, self._explained(key, value, expected))])
        elif value is not None and naively:
            self._tally.add("different", f"{where} by the naive fold", [(key, wrong) for wrong in self._naively(key, value)])

    def _naively(self, key: bytes, value: bytes) -> list[tuple[str, float | None, float]]:
        if self.naive.entities[key].newest == -math.inf:  # it is erased
            reading = self.kernel.read(value, 0)
            return [] if reading.newest_ms is None else [("newest event", float(reading.newest_ms), math.nan)]
        newest = int(self.naive.entities[key].newest)
        names = [feature.name for feature in self.view.served]
        wrong = []
        for later_ms in _LATER_MS:
            reading = self.kernel.read(value, newest + later_ms)
            wrong += differing(self.naive.features(key, newest + later_ms), dict(zip(names, reading.values, strict=True)))
        return wrong

    def _explained(self, key: bytes, value: bytes | None, expected: bytes | None) -> object:
        if value is None or expected is None:
            return "nothing is stored" if value is None else "it is stored, and the log has nothing of it"
        try:
            wrong = self._naively(key, value)
        except CorruptState as error:
            return str(error)
        return wrong or f"{sum(a != b for a, b in zip(value, expected, strict=False))} bytes of {len(value)} and {len(expected)}"

    def tell(self, count: str, what: str, found: list[object]) -> None:
        """Reports something wrong with this partition."""
        self._tally.add(count, f"{self.name}: {what}", found)

    def reading(self, key: bytes, time_ms: int) -> Reading | None:
        """What the view shows of an entity where the fold is now; None: it is not known."""
        state = self._states.get(key)
        return None if state is None else self.kernel.read_state(state, time_ms, self._fold.fence.since_ms)

    def offline(self, first: int, offsets: Ints, proofs: Ints) -> int:
        """Compares rows of the offline table, from an offset on, with the log as far as it is folded. Returns how many were."""
        count = min(len(offsets), max(0, len(self.proofs) - first))
        places = np.arange(first, first + count)
        holes = np.flatnonzero(offsets[:count] != places)[:1]
        self.tell("different", "offsets of the offline table (expected, found)", [(places[i], offsets[i]) for i in holes])
        if not len(holes):
            mine = np.frombuffer(self.proofs[first : first + count], np.uint32)
            wrong = np.flatnonzero(proofs[:count] != mine)
            self.tell("different", "offline rows (offset, checksum, expected)", [(places[i], proofs[i], mine[i]) for i in wrong])
        return count


def missing(checks: Iterable[PartitionCheck], sent: Mapping[int, tuple[int, set[int]]]) -> list[str]:
    """Events of producers that no partition of a view has. `sent`: producer -> how many numbers were acknowledged, and which were spoiled."""
    seen = [check.seen for check in checks]
    lost = []
    for producer, (count, spoiled) in sent.items():
        found = np.zeros(count, np.bool_)
        for part in seen:
            mine = np.frombuffer(bytes(part.get(producer, b"")[:count]), np.uint8)
            found[: len(mine)] |= mine > 0
        lost += [f"{producer}-{place}" for place in np.flatnonzero(~found) if place not in spoiled]
    return lost
