"""Counter-examples: every row with what became of it, the row after which the store stopped, and each number that differs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace
from rich.console import Console
from tests.kernel.streams import everything, streams
from tests.proof.conftest import ZONES

import tidemill as tm
from tidemill.cli.showing import moment, number, place, print_counterexample
from tidemill.declarations.windows import FOREVER, Grid, Tile
from tidemill.kernel.fold import LogEntry, entry_decoder
from tidemill.kernel.packed import ID_BYTES, NEWEST
from tidemill.kernel.view import ViewKernel
from tidemill.proof.counterexample import Counterexample, Difference, differences, shown, steps_of, tiles_of
from tidemill.records import ViewRecord, encode

KERNEL = ViewKernel(ZONES)


def entries(times: list[int], ids: list[str] | None = None) -> list[LogEntry]:
    """Records of one entity at these minutes."""
    decode = entry_decoder(ZONES)
    made = []
    for i, minute in enumerate(times):
        values: dict[str, Any] = {"fare": float(i), "tip": None if i % 2 else 3.0}
        record = ViewRecord(1_700_000_000_000 + 60_000 * minute, 0, (0, i), values, (ids or [f"e{i}" for i in range(99)])[i])
        made.append(decode(10 * i, b"north", encode(record)))
    return made


def folded(rows: list[LogEntry]) -> bytes:
    """The value after rows."""
    state = KERNEL.new_state()
    for row in rows:
        assert row.record is not None
        KERNEL.apply(state, row.record.time, row.record.id, row.record.values)
    return KERNEL.encode(state)


def test_the_row_after_which_the_store_stopped() -> None:
    """A store that lacks the last two events is shown to stand before them, with the value after each."""
    rows = entries([0, 1, 2, 3, 4])
    steps = steps_of(KERNEL, rows, folded(rows[:3]), None)
    assert [step.stored for step in steps] == [False, False, True, False, False]
    assert [step.features["count_1h"] for step in steps] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [step.offset for step in steps] == [0, 10, 20, 30, 40]
    assert steps[1].values == {"fare": 1.0, "tip": None}
    assert steps_of(KERNEL, rows, None, 2) == [step._replace(stored=False) for step in steps[-2:]]


def test_whole_numbers_are_told_as_the_store_tells_them() -> None:
    """Tiles of a state that was just folded from whole numbers read as those of the stored value: nothing is marked that does not differ."""
    event = tm.Event("moved", {"at": int, "who": str, "steps": int}, time="at")
    view = tm.FeatureView("walks", event, "who", [tm.sum("steps"), tm.min("steps"), tm.last("steps")], windows=["1h"])
    kernel, decode = ViewKernel(view), entry_decoder(view)
    state = kernel.new_state()
    for minute in (0, 1, 100):
        record = decode(
            minute, b"me", encode(ViewRecord(1_700_000_000_000 + 60_000 * minute, 0, (0, minute), {"steps": 5 + minute}))
        ).record
        assert record is not None
        kernel.apply(state, record.time, record.id, record.values)
    tiles, stored = tiles_of(kernel, state), tiles_of(kernel, kernel.decode(kernel.encode(state)))
    assert tiles == stored
    assert {type(value) for tile in tiles.values() for value in tile.values()} == {float}


def test_what_became_of_each_row() -> None:
    """Folded, a publisher's duplicate, sent twice, too late, not decodable: each by name, without a value where it changed nothing."""
    rows = [*entries([10_000, 10_001, 10_001, 5, 10_002], ["a", "b", "b", "c", "d"]), LogEntry(50, b"north", 0, None)]
    again: Any = rows[4].record
    rows[4] = replace(rows[4], record=replace(again, source=(0, 3)))
    steps = steps_of(KERNEL, rows, None, None)
    assert [step.fate for step in steps] == ["folded", "folded", "duplicate", "late", "resent", "poison"]
    assert [bool(step.features) for step in steps] == [True, True, False, False, False, False]


def test_a_row_that_erases_is_told_by_name() -> None:
    """An erased entity has ids, and neither tiles nor a newest event; what is stored after that row is compared as after any other."""
    view = dataclasses.replace(ZONES, erase="fare == 2")
    kernel, rows = ViewKernel(view), entries([0, 1, 2, 3, 3], ["a", "b", "c", "d", "c"])
    states = [kernel.new_state() for _ in rows]
    for i, state in enumerate(states):
        for row in rows[: i + 1]:
            assert row.record is not None
            kernel.apply(state, row.record.time, row.record.id, row.record.values)
    stored = kernel.encode(states[2])
    steps = steps_of(kernel, rows, stored, None)
    assert [step.fate for step in steps] == ["folded", "folded", "erased", "folded", "duplicate"]
    assert [step.stored for step in steps] == [False, False, True, False, False]
    assert [step.features.get("count_1h") for step in steps[1:4]] == [2.0, pytest.approx(math.nan, nan_ok=True), 1.0]
    assert tiles_of(kernel, states[2]) == {}
    found = [(one.slot, one.expected) for one in differences(kernel, kernel.encode(states[1]), stored) if one.slot != "recent ids"]
    assert ("newest event (ms)", None) in found
    assert {expected for _, expected in found} == {None}


def test_an_altered_slot_is_the_only_difference() -> None:
    """The tile, the slot and both numbers."""
    rows = entries([0, 1, 90, 200])
    state = KERNEL.decode(folded(rows))
    names = list(next(iter(tiles_of(KERNEL, state).values())))
    state.head[KERNEL.packing.first(0)] += 1.0
    (found,) = differences(KERNEL, KERNEL.encode(state), folded(rows))
    grid = KERNEL.resolutions[0].grid
    assert (found.tile, found.slot) == (Tile(grid, grid.index(1_700_000_000_000 + 60_000 * 200)), names[0])
    assert found.plain()["start_ms"] == Tile(grid, grid.index(1_700_000_000_000 + 60_000 * 200)).written[1]
    assert found.stored == found.expected + 1.0


def test_what_is_no_slot() -> None:
    """A missing value, a damaged one, other ids, another newest time: each is told in its own way."""
    value = folded(entries([0, 1]))
    assert differences(KERNEL, value, value) == []
    assert differences(KERNEL, None, value) == [Difference(None, "value", None, f"{len(value)} bytes")]
    assert differences(KERNEL, value, None)[0].expected is None
    assert "checksum" in differences(KERNEL, value[:-1] + bytes([value[-1] ^ 1]), value)[0].stored
    state = KERNEL.decode(value)
    state.head[NEWEST] += 5
    state.ids = state.ids[ID_BYTES:] + state.ids[:ID_BYTES]
    assert [item.slot for item in differences(KERNEL, KERNEL.encode(state), value)] == (
        ["newest event (ms)", "recent ids"] if len(state.recent_ids) > 1 else ["newest event (ms)"]
    )


@pytest.mark.slow
@given(streams(max_size=25), streams(max_size=25))
def test_values_differ_exactly_when_something_is_found(one: list[object], other: list[object]) -> None:
    """For any two histories: equal bytes give no difference, other bytes at least one."""
    kernel = everything()
    values = []
    for events in (one, other):
        state = kernel.new_state()
        for event in events:
            kernel.apply(state, event.time_ms, event.id, event.values)  # type: ignore[attr-defined]
        values.append(kernel.encode(state) if events else None)
    assert bool(differences(kernel, *values)) == (values[0] != values[1])


@pytest.mark.slow
@given(streams(max_size=25))
def test_tiles_hold_every_event_once(events: list[object]) -> None:
    """Of each length, the counts of all tiles together are the events that were folded and still are in reach."""
    kernel = everything()
    state = kernel.new_state()
    for event in events:
        kernel.apply(state, event.time_ms, event.id, event.values)  # type: ignore[attr-defined]
    tiles = tiles_of(kernel, state) if events else {}
    grids = list(dict.fromkeys(tile.grid for tile in tiles))
    assert list(tiles) == sorted(tiles, key=lambda tile: (grids.index(tile.grid), tile.number))
    for tile in tiles:
        length, start = tile.written
        assert (length, start) == (0, 0) or start % length == 0


def test_it_can_be_written_and_printed() -> None:
    """As JSON for the log, and as tables for a person, markup in an entity's name included."""
    rows = entries([0, 1, 2])
    found = differences(KERNEL, folded(rows[:2]), folded(rows))
    example = Counterexample("zones", 1, "[bold]north", 21, 3, steps_of(KERNEL, rows, folded(rows[:2]), 2), found)
    assert msgspec.json.decode(msgspec.json.encode(shown(example)))["steps"][0]["stored"] is True
    console = Console(record=True, width=240)
    print_counterexample(console, example)
    text = console.export_text()
    assert "[bold]north: rows below the fence 21" in text
    assert "1 rows before" in text
    assert "<- what is stored" in text
    print_counterexample(console, example._replace(steps=[]))
    assert "not the value after any of these rows" in console.export_text()


def test_words_for_odd_values() -> None:
    """Nothing, NaN, times no calendar has, and tiles without a beginning."""
    assert [number(None), number(float("nan")), number(1.5), number("x")] == ["-", "null", "1.5", "x"]
    assert [moment(None), moment(0)] == ["-", "1970-01-01T00:00:00Z"]
    assert [place(None), place(Tile(FOREVER, 0)), place(Tile(Grid(300_000), 0))] == [
        "entity",
        "lifetime",
        "5 min from 1970-01-01T00:00:00Z",
    ]
