"""Why a stored value is wrong: the entity's rows one by one with the value after each, and every slot in which the store differs.

An operator sees in it whether an event was lost, an event was folded twice, or a value was altered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from tidemill.declarations.aggregations import Value
from tidemill.declarations.windows import Tile
from tidemill.errors import CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold
from tidemill.kernel.packed import NEVER, EntityState
from tidemill.kernel.view import ViewKernel

_APPLIED = ("folded", "erased")
_COUNTED = {"duplicates": "duplicate", "resent": "resent", "late": "late", "poison": "poison"}


class ShownStep(NamedTuple):
    """One row of the entity. `fate`: "folded", "erased" (it erased the entity), or why it changed nothing; `features`: the view's values after this row, at the row's time;
    `stored`: whether the value after this row is the one in the online store."""

    offset: int
    time_ms: int | None
    id: str | None
    values: dict[str, Any]
    fate: str
    features: dict[str, Value]
    stored: bool


class Difference(NamedTuple):
    """One number that differs. `tile`: its tile (None: it is in no tile); `slot`: its name; `stored`, `expected`: None where there is no
    such number."""

    tile: Tile | None
    slot: str
    stored: Any
    expected: Any

    def plain(self) -> dict[str, Any]:
        """As plain data, for logs and machines: the tile as its length and its start in ms."""
        tile_ms, start_ms = (None, None) if self.tile is None else self.tile.written
        return {"tile_ms": tile_ms, "start_ms": start_ms, "slot": self.slot, "stored": self.stored, "expected": self.expected}


class Counterexample(NamedTuple):
    """An entity whose stored value is not the fold of its rows below `fence`. `rows`: the number of these rows; `steps`: the last of them,
    in order; `differences`: every number that is wrong."""

    view: str
    partition: int
    entity: str
    fence: int
    rows: int
    steps: list[ShownStep]
    differences: list[Difference]


def newest_of(state: EntityState) -> int | None:
    """Time of the newest event in ms; None of an erased entity."""
    return None if state.newest == NEVER else state.newest


def tiles_of(kernel: ViewKernel, state: EntityState) -> dict[Tile, dict[str, float | str]]:
    """The tiles of a state by grid and in order of time, each with the value of every slot by name; none of an erased entity."""
    if newest_of(state) is None:
        return {}
    found: dict[Tile, dict[str, float | str]] = {}
    for resolution, tiles in zip(kernel.resolutions, kernel.packing.view(state), strict=True):
        grid, show = resolution.grid, resolution.layout.show
        for i, (age, slots) in enumerate(zip(tiles.ages[::-1].tolist(), tiles.closed.tolist(), strict=True)):
            found[Tile(grid, tiles.newest - age)] = show([*slots, *(tiles.closed_sides[i] if tiles.closed_sides else ())])
        slots = map(float, tiles.slots)  # those of a state that was just folded may be whole numbers
        found[Tile(grid, tiles.newest)] = show([*slots, *tiles.open_sides])
    return found


def differences(kernel: ViewKernel, stored: bytes | None, expected: bytes | None) -> list[Difference]:
    """Every number in which two values of an entity differ (None: there is no value)."""
    if stored == expected:
        return []
    if stored is None or expected is None:
        return [Difference(None, "value", _size(stored), _size(expected))]
    try:
        one, other = kernel.decode(stored), kernel.decode(expected)
    except CorruptState as error:
        return [Difference(None, "value", error.message, _size(expected))]
    found = [Difference(tile, slot, a, b) for tile, slot, a, b in _slots(tiles_of(kernel, one), tiles_of(kernel, other))]
    if one.newest != other.newest:
        found.append(Difference(None, "newest event (ms)", newest_of(one), newest_of(other)))
    if one.ids != other.ids:
        found.append(Difference(None, "recent ids", one.recent_ids, other.recent_ids))
    return found or [Difference(None, "layout of the bytes", _size(stored), _size(expected))]


def _slots(
    one: dict[Tile, dict[str, float | str]], other: dict[Tile, dict[str, float | str]]
) -> Iterator[tuple[Tile, str, float | str | None, float | str | None]]:
    for tile in sorted(one.keys() | other.keys(), key=lambda tile: tile.written):
        a, b = one.get(tile, {}), other.get(tile, {})
        for slot in a or b:
            if not _same(a.get(slot), b.get(slot)):
                yield tile, slot, a.get(slot), b.get(slot)


def _same(a: float | str | None, b: float | str | None) -> bool:
    """Whether two values have the same bits."""
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return a == b
    return struct.pack("<d", a) == struct.pack("<d", b)


def _size(value: bytes | None) -> str | None:
    return None if value is None else f"{len(value)} bytes"


def steps_of(kernel: ViewKernel, entries: Sequence[LogEntry], stored: bytes | None, last: int | None) -> list[ShownStep]:
    """The last rows of one entity (None: all), each with its fate. `entries`: as the book of the partition gives them."""
    fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
    shown = 0 if last is None else max(0, len(entries) - last)
    steps = []
    for i, entry in enumerate(entries):
        before = fold.fence if i >= shown else None
        fold.advance([entry], states)
        if before is not None:
            fate = _fate(kernel, entry, before, fold.fence)
            steps.append(_step(kernel, entry, fate, states.get(entry.key), stored))
    return steps


def _fate(kernel: ViewKernel, entry: LogEntry, before: Fence, after: Fence) -> str:
    applied = "erased" if entry.record is not None and kernel.erases(entry.record.values) else "folded"
    return next((fate for name, fate in _COUNTED.items() if getattr(after, name) > getattr(before, name)), applied)


def _step(kernel: ViewKernel, entry: LogEntry, fate: str, state: EntityState | None, stored: bytes | None) -> ShownStep:
    record = entry.record
    features: dict[str, Value] = {}
    if state is not None and record is not None and fate in _APPLIED:
        reading = kernel.read_state(state, record.time)
        features = {feature.name: reading.value(i) for i, feature in enumerate(kernel.view.served)}
    as_stored = state is not None and fate in _APPLIED and kernel.encode(state) == stored
    if record is None:
        return ShownStep(entry.offset, None, None, {}, fate, features, as_stored)
    given = {name: getattr(record.values, name) for name in kernel.view.value_fields}
    return ShownStep(entry.offset, record.time, record.id, given, fate, features, as_stored)


def shown(example: Counterexample) -> dict[str, Any]:
    """A counter-example as plain data, for logs and machines."""
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            **example._asdict(),
            "steps": [step._asdict() for step in example.steps],
            "differences": [difference.plain() for difference in example.differences],
        }
    )
    return plain
