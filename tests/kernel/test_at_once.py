"""Many questions at once, against the fold of one event after the other."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.kernel.streams import (
    ASKEW,
    EVENT,
    READ_OFFSETS_MS,
    START_MS,
    TILES,
    Happening,
    Values,
    column_value,
    numbers,
    streams,
    view_of,
)

from tidemill import FeatureView, count, last_k, mean
from tidemill.declarations.slots import FloatKind, Slot
from tidemill.kernel import at_once, tile_versions
from tidemill.kernel.arrays import Numbers, compile_arrays
from tidemill.kernel.at_once import ReadAtOnce
from tidemill.kernel.served import serve
from tidemill.kernel.tile_versions import Events, Pairs
from tidemill.kernel.tiles import TileLayout
from tidemill.kernel.view import ViewKernel

LATER_MS = [offset for offset in READ_OFFSETS_MS if offset >= 0]


def columns_of(view: FeatureView, values: list[Values]) -> dict[str, Numbers]:
    """The columns of a view as arrays."""
    found = {}
    for text in view.columns:
        column = [column_value(text, each) for each in values]
        there = np.array([value is not None for value in column], bool)
        array = np.array([value if isinstance(value, float) else 0.0 for value in column])
        found[text] = Numbers(array, None if there.all() else there)
    return found


def one_by_one(kernel: ViewKernel, events: list[Happening], times_ms: list[int]) -> list[list[float]]:
    """What a request sees after each of these events, at the time that belongs to it."""
    state, seen = kernel.new_state(), list[list[float]]()
    for event, time_ms in zip(events, times_ms, strict=True):
        kernel.apply(state, event.time_ms, None, event.values)
        seen.append(serve(kernel.view, kernel.read_state(state, time_ms), time_ms).values)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("few", "block"), [(1, 1 << 17), (3, 8), (10**9, 1 << 17)])
@given(
    histories=st.lists(streams(), min_size=1, max_size=4),
    ttl=st.sampled_from([None, "1h"]),
    askew=st.booleans(),
    offset=st.sampled_from(LATER_MS),
)
def test_it_reads_what_the_fold_reads(
    few: int, block: int, histories: list[list[Happening]], ttl: str | None, askew: bool, offset: int
) -> None:
    """After every event of every entity, out of order, late and null, each feature has the bits that the kernel gives it."""
    view = view_of(numbers().view.features, ASKEW if askew else TILES)
    object.__setattr__(view, "ttl", ttl)
    kernel = ViewKernel(view, ["x"])
    reader, events = ReadAtOnce.of(kernel), [event for history in histories for event in history]
    assert reader is not None
    given_events = Events(
        np.repeat(np.arange(len(histories)), [len(history) for history in histories]),
        np.array([event.time_ms for event in events]),
        columns_of(view, [event.values for event in events]),
    )
    expected, times = list[list[float]](), list[int]()
    for history in histories:
        asked = [newest_ms + offset for newest_ms in accumulate((event.time_ms for event in history), max)]
        expected += one_by_one(kernel, history, asked)
        times += asked
    order = np.random.default_rng(len(events)).permutation(len(events))
    order = np.append(order, order[: len(order) // 2])  # some ask the same
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(tile_versions, "FEW_TILES", few)
        changed.setattr(at_once, "_EVENTS_AT_ONCE", block)
        found = reader.read(given_events, order, np.array(times)[order])
    assert found.tobytes() == np.array(expected)[order].tobytes()


def test_fields_that_came_later() -> None:
    """A feature has no value in a window that begins before its field came, as when it is read one by one."""
    view = view_of([count(), count("y", name="ys"), mean("y")]).as_version(2, in_force=True, since={"y": START_MS + 3_600_000})
    kernel, reader = ViewKernel(view), ReadAtOnce.of(ViewKernel(view))
    assert reader is not None
    events = [Happening(START_MS + minute * 60_000, None, Values(1.0, minute, True)) for minute in range(0, 150, 7)]
    columns = columns_of(view, [event.values for event in events])
    given_events = Events(np.zeros(len(events), np.int64), np.array([event.time_ms for event in events]), columns)
    found = reader.read(given_events, np.arange(len(events)), given_events.times_ms)
    expected = one_by_one(kernel, events, [event.time_ms for event in events])
    assert found.tobytes() == np.array(expected).tobytes()
    assert np.isnan(found).any()
    assert not np.isnan(found[-1, [0, 1, 2, 3, 4]]).any()


def test_what_is_asked_twice_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of the same entity at the same moment share their values; another moment is another question."""
    kernel, reader = numbers(), ReadAtOnce.of(numbers())
    assert reader is not None
    events = [Happening(START_MS + minute * 60_000, None, Values(1.0, minute, True)) for minute in (0, 1, 5)]
    given_events = Events(np.zeros(3, np.int64), np.array([e.time_ms for e in events]), columns_of(kernel.view, [e.values for e in events]))
    read, asked = ReadAtOnce._read_block, list[int]()

    def counted(self: ReadAtOnce, events: Events, last: Any, times_ms: Any) -> Any:
        asked.append(len(last))
        return read(self, events, last, times_ms)

    monkeypatch.setattr(ReadAtOnce, "_read_block", counted)
    found = reader.read(given_events, np.array([2, 1, 2, 2]), given_events.times_ms[[2, 1, 2, 2]] + np.array([0, 0, 0, 60_000]))
    assert asked == [3]
    assert found[0].tobytes() == found[2].tobytes() != found[3].tobytes()


def test_views_that_are_read_one_by_one() -> None:
    """Lists, and events that wait for their time, are not read at once."""
    assert ReadAtOnce.of(ViewKernel(view_of([last_k("y", 3)]))) is None
    waiting = FeatureView("waiting", EVENT, "who", [count()], windows=["1h"], ahead="30m")
    assert ReadAtOnce.of(ViewKernel(waiting)) is None


@dataclass(frozen=True)
class Odd(FloatKind):
    """A kind whose line calls a function, or is no plain assignment."""

    line: str
    reads = frozenset({"number"})
    word, empty, ufunc = "odd", (0.0,), "add"

    @property
    def fold(self) -> str:  # type: ignore[override]
        """The line."""
        return self.line


@pytest.mark.parametrize(
    ("line", "can"),
    [
        ("s[{i}] += x * x - 2.0", True),
        ("if 0.0 < x: s[{i}] = -x", True),
        ("s[{i}] = abs(x)", False),
        ("s[{i}] = x if x > 0 else 0.0", False),
        ("if 0.0 < x < 9.0: s[{i}] = x", False),
        ("if x > 0.0 and x < 9.0: s[{i}] = x", False),
        ("y = x; s[{i}] = y", False),
        ("while x > s[{i}]: s[{i}] += 1.0", False),
    ],
)
def test_lines_of_other_kinds(line: str, can: bool) -> None:
    """A line that calculates, compares and assigns is done with arrays, to the same bits; any other one by one."""

    view = view_of([count("x"), count("y", name="ys")])
    layout = TileLayout([Slot(Odd(line), "x"), Slot(Odd(line), "y")], view.columns, {"x"})
    fold = compile_arrays(layout)
    assert (fold is not None) is can
    if fold is not None:
        values = [Values(x, y, True) for x, y in [(None, 3), (2.5, -1), (-2.5, 9), (11.0, 4)]]
        many = [np.full(len(values), number) for number in layout.empty]
        for _ in range(2):
            fold(many, np.full(len(values), float(START_MS)), columns_of(view, values))
        for i, each in enumerate(values):
            tile: list[Any] = list(layout.empty)
            for _ in range(2):
                layout.fold(tile, START_MS, each)
            assert [float(numbers_[i]) for numbers_ in many] == [float(number) for number in tile]


@pytest.mark.slow
@given(data=st.data(), windows=st.integers(1, 5), tiles=st.sampled_from([0, 1, 2, 3, 7, 8, 9, 17, 140]))
def test_windows_merged_together(data: st.DataObject, windows: int, tiles: int) -> None:
    """Windows of equally many tiles are merged to the bits of each one by itself, however the sums are grouped."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    chosen = data.draw(st.lists(st.sampled_from(numbers().view.features), min_size=1, max_size=6, unique_by=lambda feature: feature.label))
    layout = ViewKernel(view_of(chosen)).resolutions[0].layout
    many = draw.normal(size=(windows, tiles, layout.width)) * 10.0 ** draw.integers(-3, 9, (windows, tiles, layout.width))
    for place, name in enumerate(layout.names):
        if name.startswith("n("):
            many[..., place] = draw.integers(0, 3, (windows, tiles))
        if name.startswith(("last_time", "first(")):
            many[..., place] = draw.integers(START_MS, START_MS + 9, (windows, tiles))
    merged = layout.merge_each(many)
    assert [struct.pack(f"<{layout.width}d", *row) for row in merged] == [
        struct.pack(f"<{layout.width}d", *layout.merge(each)) for each in many
    ]


@given(
    pairs=st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5) | st.integers(-(2**60), 2**60)), min_size=1),
    asked=st.lists(st.tuples(st.integers(0, 9), st.integers(-6, 6) | st.integers(-(2**61), 2**61))),
)
@example(pairs=[(0, 0), (0, -922_337_203_685_477_579)], asked=[(9, 0)])
def test_a_pair_is_one_number_in_the_same_order(pairs: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    """However far apart moments lie, numbers stand as pairs do, and any other pair finds its place among them."""
    pairs.sort()
    entities, moments = np.array(pairs).T
    made = Pairs(entities, moments)
    held = made.of(entities, moments)
    assert (np.diff(held) >= 0).all()
    assert np.unique(held).size == len(set(pairs))
    for entity, moment in asked:
        place = int(np.searchsorted(held, made.of(np.array([entity]), np.array([moment]))[0]))
        assert place == sum(pair < (entity, moment) for pair in pairs)


def test_null_is_told_as_none() -> None:
    """A column gives plain numbers, or None, to what folds one by one."""
    assert Numbers(np.array([1.0, 0.0]), np.array([True, False])).told() == [1.0, None]
    assert Numbers(np.array([1.0, math.inf]), None).told() == [1.0, math.inf]
