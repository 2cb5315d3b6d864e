"""distinct("driver"): how many different values a column had. The count is exact up to a bound; above it, a sketch estimates."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.hyperloglog import EMPTY, REGISTERS, estimate, place_of
from tidemill.declarations.slots import SideKind

EXACT = 255
"""Up to this many different values are counted exactly: their hashes together are shorter than a sketch."""
_BYTES = 8


def hash_of(value: float | str) -> bytes:
    """64 bits of BLAKE2b of a text or a number, the same on every machine and in every version. 1 and 1.0 have the same hash."""
    if isinstance(value, str):
        return blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_BYTES, person=b"text").digest()
    whole = value == value // 1 and abs(value) < 2**63
    return blake2b(b"%d" % int(value) if whole else struct.pack("<d", value), digest_size=_BYTES, person=b"number").digest()


@dataclass(frozen=True)
class DifferentValues(SideKind):
    """The sorted hashes of the different values; with more than EXACT values, the registers of a HyperLogLog. Neither depends on the order
    of the events."""

    word, reads = "distinct", frozenset({"number", "text"})

    @property
    def most_bytes(self) -> int:
        """The length of a sketch."""
        return REGISTERS

    def add(self, held: bytes, time_ms: int, value: float | str) -> bytes:
        """Adds a value, unless it is there already."""
        hashed = hash_of(value)
        if len(held) == REGISTERS:
            return _noted(held, (hashed,))
        place = bisect_left(range(len(held) // _BYTES), hashed, key=lambda i: held[i * _BYTES : (i + 1) * _BYTES]) * _BYTES
        if held[place : place + _BYTES] == hashed:
            return held
        return _bounded(held[:place] + hashed + held[place:])

    def merge(self, held: Sequence[bytes]) -> bytes:
        """The values of all, each once."""
        sketches = [value for value in held if len(value) == REGISTERS]
        hashes = {hashed for value in held if len(value) < REGISTERS for hashed in _hashes(value)}
        if not sketches:
            return _bounded(b"".join(sorted(hashes)))
        return _noted(bytes(map(max, *sketches)) if len(sketches) > 1 else sketches[0], hashes)

    def show(self, held: bytes) -> str:
        """The count and a digest, since two sets of values may differ and have the same count."""
        about = "about " if len(held) == REGISTERS else ""
        return f"{about}{count_of(held):g} ({blake2b(held, digest_size=4).hexdigest()})"


def _hashes(held: bytes) -> list[bytes]:
    return [held[i : i + _BYTES] for i in range(0, len(held), _BYTES)]


def _bounded(held: bytes) -> bytes:
    """The sorted hashes, or their sketch if there are more than EXACT."""
    return held if len(held) <= EXACT * _BYTES else _noted(EMPTY, _hashes(held))


def _noted(registers: bytes, hashes: Iterable[bytes]) -> bytes:
    changed = None
    for hashed in hashes:
        place, rank = place_of(int.from_bytes(hashed, "big"))
        if rank > (changed or registers)[place]:
            changed = changed or bytearray(registers)
            changed[place] = rank
    return registers if changed is None else bytes(changed)


def count_of(held: bytes) -> float:
    """How many different values a side value holds; an estimate is rounded to a whole number."""
    return float(round(estimate(held))) if len(held) == REGISTERS else float(len(held) // _BYTES)


class Distinct(Aggregation):
    """How many different values a column had: exact up to 255 in a window, above that with a standard error of 2.3 %."""

    word, kinds = "distinct", (DifferentValues(),)

    def read(self, *slots: bytes) -> float:
        """The count; 0 over no events."""
        return count_of(slots[0])


def distinct(column: str, *, windows: Sequence[str] | None = None, name: str | None = None) -> Distinct:
    """How many different values, of a number or a text: exact up to 255, above that with a standard error of 2.3 %."""
    return Distinct(column=column, windows=None if windows is None else tuple(windows), name=name)
