"""Why a stored value is wrong: the entity's rows one by one with the value after each, and every slot in which the store differs.

All that an operator needs to see whether an event was lost, folded twice, or a value altered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tidemill.errors import CorruptState
from tidemill.kernel.fold import LogEntry, PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel

_COUNTED = {"duplicates": "duplicate", "resent": "resent", "late": "late", "poison": "poison"}


class Step(NamedTuple):
    """One row of the entity. `fate`: folded, or why not; `features`: the view's values after it, at its own time; `stored`: after this row the value
    is the one that the online store has."""

    offset: int
    time_ms: int | None
    id: str | None
    values: dict[str, Any]
    fate: str
    features: dict[str, float]
    stored: bool


class Difference(NamedTuple):
    """One number that differs. `tile_ms`, `start_ms`: of the tile (None: not in a tile); `slot`: which number of it; None: not there."""

    tile_ms: int | None
    start_ms: int | None
    slot: str
    stored: Any
    expected: Any


class Counterexample(NamedTuple):
    """An entity whose stored value is not the fold of its rows below `fence`. `rows`: how many it has; `steps`: the last of them, in order;
    `differences`: where it is wrong."""

    view: str
    partition: int
    entity: str
    fence: int
    rows: int
    steps: list[Step]
    differences: list[Difference]


def tiles_of(kernel: ViewKernel, state: EntityState) -> dict[tuple[int, int], dict[str, float]]:
    """The tiles of a state by (length, start) in ms, in order of time: each slot's number by its name. A tile for ever has the length 0."""
    found: dict[tuple[int, int], dict[str, float]] = {}
    for resolution, tiles in zip(kernel.resolutions, kernel.packing.view(state), strict=True):
        names = [f"{slot.kind}({slot.column or ''})" for slot in resolution.layout.slots]
        length = resolution.tile_ms
        for age, slots in zip(tiles.ages[::-1].tolist(), tiles.closed.tolist(), strict=True):
            found[length, (tiles.newest - age) * length] = dict(zip(names, slots, strict=True))
        found[length, tiles.newest * length] = dict(zip(names, tiles.slots, strict=True))
    return found


def differences(kernel: ViewKernel, stored: bytes | None, expected: bytes | None) -> list[Difference]:
    """Every number in which two values of an entity differ (None: there is no value)."""
    if stored == expected:
        return []
    if stored is None or expected is None:
        return [Difference(None, None, "value", _size(stored), _size(expected))]
    try:
        one, other = kernel.decode(stored), kernel.decode(expected)
    except CorruptState as error:
        return [Difference(None, None, "value", error.message, _size(expected))]
    found = [Difference(*tile, slot, a, b) for tile, slot, a, b in _slots(tiles_of(kernel, one), tiles_of(kernel, other))]
    if one.newest != other.newest:
        found.append(Difference(None, None, "newest event (ms)", one.newest, other.newest))
    if one.ids != other.ids:
        found.append(Difference(None, None, "recent ids", one.recent_ids, other.recent_ids))
    return found or [Difference(None, None, "layout of the bytes", _size(stored), _size(expected))]


def _slots(
    one: dict[tuple[int, int], dict[str, float]], other: dict[tuple[int, int], dict[str, float]]
) -> Iterator[tuple[tuple[int, int], str, float | None, float | None]]:
    for tile in sorted(one.keys() | other.keys()):
        a, b = one.get(tile, {}), other.get(tile, {})
        for slot in a or b:
            if not _same(a.get(slot), b.get(slot)):
                yield tile, slot, a.get(slot), b.get(slot)


def _same(a: float | None, b: float | None) -> bool:
    """Bit for bit, as the store compares."""
    if a is None or b is None:
        return a is b
    return struct.pack("<d", a) == struct.pack("<d", b)


def _size(value: bytes | None) -> str | None:
    return None if value is None else f"{len(value)} bytes"


def steps_of(kernel: ViewKernel, entries: Sequence[LogEntry], resent: set[int], stored: bytes | None, last: int | None) -> list[Step]:
    """The last rows of one entity (None: all), each with what became of it. `resent`: offsets of records that were sent twice."""
    fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
    shown = 0 if last is None else max(0, len(entries) - last)
    steps = []
    for i, entry in enumerate(entries):
        before = fold.fence if i >= shown else None
        if entry.offset not in resent:
            fold.advance([entry], states)
        if before is not None:
            fate = "resent" if entry.offset in resent else _fate(before, fold.fence)
            steps.append(_step(kernel, entry, fate, states.get(entry.key), stored))
    return steps


def _fate(before: Any, after: Any) -> str:
    return next((fate for name, fate in _COUNTED.items() if getattr(after, name) > getattr(before, name)), "folded")


def _step(kernel: ViewKernel, entry: LogEntry, fate: str, state: EntityState | None, stored: bytes | None) -> Step:
    record = entry.record
    features: dict[str, float] = {}
    if state is not None and record is not None and fate == "folded":
        values = kernel.read_state(state, record.time).values
        features = {feature.name: value for feature, value in zip(kernel.view.served, values, strict=True)}
    as_stored = state is not None and fate == "folded" and kernel.encode(state) == stored
    if record is None:
        return Step(entry.offset, None, None, {}, fate, features, as_stored)
    given = {name: getattr(record.values, name) for name in kernel.view.value_fields}
    return Step(entry.offset, record.time, record.id, given, fate, features, as_stored)


def shown(example: Counterexample) -> dict[str, Any]:
    """A counter-example as plain data, for logs and machines."""
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            **example._asdict(),
            "steps": [step._asdict() for step in example.steps],
            "differences": [difference._asdict() for difference in example.differences],
        }
    )
    return plain
