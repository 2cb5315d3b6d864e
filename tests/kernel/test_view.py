"""The kernel as a whole: how its tiles merge, what is dropped, and what a reading tells of the past."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import (
    ASKEW,
    DEDUPE,
    EVENT,
    MINUTE_MS,
    START_MS,
    TILES,
    Happening,
    Reference,
    Values,
    everything,
    fold_all,
    numbers,
    streams,
    view_of,
)

import tidemill as tm
from tidemill import FeatureView, count, last, max, mean, std
from tidemill.declarations.windows import EACH_MS
from tidemill.kernel.packed import ID_BYTES, EntityState
from tidemill.kernel.view import CLOCKS_MS, Applied, ViewKernel, _holds

KERNEL = everything()
NUMBERS = numbers()
HORIZON_MS = 60 * MINUTE_MS
SUMMED = ("sum", "m2")


def at(time_ms: int, x: float | None = 1.0, event_id: str | None = None) -> Happening:
    """One event with a plain value."""
    return Happening(time_ms, event_id, Values(x, 1, True))


def apply(state: EntityState, event: Happening, kernel: ViewKernel = KERNEL) -> Applied:
    """Folds one event, with the kernel of everything unless told otherwise."""
    return kernel.apply(state, event.time_ms, event.id, event.values)


@pytest.mark.slow
@given(streams(), st.data())
def test_state_does_not_depend_on_the_cut_into_batches(events: list[Happening], data: st.DataObject) -> None:
    """Stored and loaded between any two events, or never, the bytes are the same."""
    expected = KERNEL.encode(fold_all(KERNEL, events))
    cuts = data.draw(st.sets(st.integers(1, len(events))))
    for chosen in (cuts, set(range(1, len(events) + 1))):
        state = KERNEL.new_state()
        for i, event in enumerate(events, 1):
            apply(state, event)
            if i in chosen:
                state = KERNEL.decode(KERNEL.encode(state))
        assert KERNEL.encode(state) == expected


@pytest.mark.slow
@given(streams(), st.sampled_from([TILES, ASKEW]))
def test_the_short_way_is_the_long_way(events: list[Happening], tiles: tuple[str, dict[str, str]]) -> None:
    """Folding an event into the open tiles of every length at once gives the very bytes of folding it length by length."""
    view = view_of([count(), tm.sum("x"), std("x"), tm.min("y"), max("y"), last("x")], tiles)
    one, other = ViewKernel(view), ViewKernel(view)
    other._share(EACH_MS)
    assert (one._shared_ms > 1) == (tiles is TILES)
    assert one.encode(fold_all(one, events)) == other.encode(fold_all(other, events))


@given(st.lists(st.binary(min_size=ID_BYTES, max_size=ID_BYTES), max_size=6), st.integers(0, 48))
def test_an_id_is_found_only_where_one_begins(ids: list[bytes], at: int) -> None:
    """Bytes that stand across two ids are none of them."""
    joined = b"".join(ids)
    digest = joined[at : at + ID_BYTES].ljust(ID_BYTES, b"\0")
    assert _holds(joined, digest) == (digest in ids)
    assert not _holds(b"\0" * 4 + b"\1" * 8 + b"\0" * 4, b"\1" * 8)


@given(streams(), st.integers(0, 20))
def test_merging_tiles_is_associative(events: list[Happening], cut: int) -> None:
    """Merging two merged halves equals merging all tiles: to the bit for what is not summed, within rounding for what is."""
    for resolution in KERNEL.resolutions:
        layout = resolution.layout
        rows = []
        for event in sorted(events, key=lambda event: event.time_ms):
            rows.append(list(layout.blank))
            layout.fold(rows[-1], event.time_ms, event.values)
        tiles, cut = np.array([row[: layout.width] for row in rows]), cut % (len(rows) + 1)
        whole = layout.merge(tiles)
        assert np.array_equal(layout.merge(tiles.tolist()), whole, equal_nan=True)  # rows that are no array are merged all the same
        halves = layout.merge(np.array([layout.merge(tiles[:cut]), layout.merge(tiles[cut:])]))
        scale = float(np.abs(np.nan_to_num(tiles, posinf=0, neginf=0)).sum()) + 1.0
        for name, one, two in zip(layout.names, whole, halves, strict=False):  # side values are merged apart
            word = name.split("(")[0]
            if word in SUMMED:
                assert one == pytest.approx(two, rel=1e-9, abs=1e-12 * (scale**2 if word == "m2" else scale))
            else:
                assert one == two or (math.isnan(one) and math.isnan(two))
        sides = [tuple(held for held in row[layout.width :] if isinstance(held, bytes)) for row in rows]
        assert layout.merge_sides(sides) == layout.merge_sides([layout.merge_sides(sides[:cut]), layout.merge_sides(sides[cut:])])


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=12), st.permutations(range(12)))
def test_merging_equals_folding(values: list[int], order: Sequence[int]) -> None:
    """Whole numbers folded into one tile, or into many that are merged, give the same slots: sums of whole numbers are exact."""
    layout = KERNEL.resolutions[0].layout
    one, many = list(layout.blank), []
    for i, value in enumerate(values):
        event = Values(float(value), value, value > order[0])
        layout.fold(one, START_MS + i // 2, event)
        many.append(list(layout.blank))
        layout.fold(many[-1], START_MS + i // 2, event)
    assert layout.merge(np.array([row[: layout.width] for row in many])) == pytest.approx(
        one[: layout.width], rel=1e-12, abs=1e-9, nan_ok=True
    )
    assert layout.merge_sides([tuple(row[layout.width :]) for row in many]) == one[layout.width :]  # type: ignore[arg-type]


def test_merging_no_tiles_gives_the_empty_tile() -> None:
    """No tile, one empty tile and many empty tiles are one and the same."""
    for resolution in KERNEL.resolutions:
        layout = resolution.layout
        for tiles in (np.empty((0, layout.width)), np.array([layout.empty]), np.array([layout.empty] * 3)):
            assert np.array_equal(layout.merge(tiles), layout.empty, equal_nan=True)


def stored_limit(kernel: ViewKernel) -> int:
    """The most bytes a value may have: the tiles a window can reach, a sixth of them in reserve, and one row more of each length."""
    one = len(kernel.encode(fold_all(kernel, [at(START_MS)])))
    rows = sum((resolution.kept_tiles * 7 / 6 + 1) * (8 * resolution.layout.width + 4) for resolution in kernel.resolutions)
    return int(one + 8 * DEDUPE + rows)


def in_reach(state: EntityState) -> list[int]:
    """How many closed tiles of each length a window can still reach."""
    kept = [resolution.kept_tiles for resolution in NUMBERS.resolutions]
    return [int((tiles.ages <= most).sum()) for tiles, most in zip(NUMBERS.packing.view(state), kept, strict=True)]


@given(streams(max_size=40))
def test_tiles_that_no_window_reaches_are_dropped(events: list[Happening]) -> None:
    """However long the stream, a value holds hardly more tiles than the windows at its newest event can reach."""
    state, limit = NUMBERS.new_state(), stored_limit(NUMBERS)
    for event in events:
        apply(state, event, NUMBERS)
        assert len(NUMBERS.encode(state)) <= limit


def test_a_steady_stream_keeps_exactly_what_windows_reach() -> None:
    """With an event in every tile, a value holds the tiles of each longest window and the one before, and a late event adds none.

    An event in reach of the hour's tiles but not of the minutes' is folded where it counts and left out where it does not.
    """
    state = fold_all(NUMBERS, [at(START_MS + i * MINUTE_MS) for i in range(180)])
    assert in_reach(state) == [resolution.kept_tiles for resolution in NUMBERS.resolutions]
    length = len(NUMBERS.encode(state))
    assert length <= stored_limit(NUMBERS)
    before = NUMBERS.read(NUMBERS.encode(state), state.newest)
    assert apply(state, at(state.newest - 30 * MINUTE_MS), NUMBERS) is Applied.CORRECTED
    assert len(NUMBERS.encode(state)) == length
    after = NUMBERS.read(NUMBERS.encode(state), state.newest)
    changed = [i for i, feature in enumerate(NUMBERS.view.served) if feature.name.startswith("count_0")]
    assert [after.values[i] - before.values[i] for i in changed] == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_a_long_silence_leaves_one_tile() -> None:
    """After a gap longer than every window only the newest tile of each length is left, and the life's tile goes on."""
    first = len(NUMBERS.encode(fold_all(NUMBERS, [at(START_MS)])))
    events = [at(START_MS + i * MINUTE_MS) for i in range(60)]
    assert len(NUMBERS.encode(fold_all(NUMBERS, events))) > 2 * first
    stored = NUMBERS.encode(fold_all(NUMBERS, [*events, at(START_MS + 10**9, 5.0)]))
    assert len(stored) == first
    values = dict(zip((feature.name for feature in NUMBERS.view.served), NUMBERS.read(stored, START_MS + 10**9).values, strict=True))
    assert (values["count_0_1h"], values["count_0"], values["max_1_1h"], values["min_0"]) == (1.0, 61.0, 1.0, 1.0)


@given(streams(), st.integers(1, 10**12))
def test_a_late_event_changes_nothing(events: list[Happening], beyond: int) -> None:
    """An event from before the longest window is told to be late, and not a byte of the state changes."""
    state = fold_all(KERNEL, events)
    before = KERNEL.encode(state)
    assert apply(state, at(state.newest - HORIZON_MS - beyond, event_id="late")) is Applied.LATE
    assert KERNEL.encode(state) == before


@given(streams())
def test_the_oldest_event_in_reach_is_folded(events: list[Happening]) -> None:
    """An event exactly as old as the longest window is not late."""
    state = fold_all(KERNEL, events)
    assert apply(state, at(state.newest - HORIZON_MS, event_id="in time")) is Applied.CORRECTED


def test_a_view_without_windows_is_never_late() -> None:
    """Over an entity's whole life there is no horizon."""
    kernel = ViewKernel(FeatureView("life", EVENT, "who", [last("x"), count()]))
    state = fold_all(kernel, [at(START_MS, 1.0)])
    assert kernel.apply(state, 0, None, Values(9.0, 1, True)) is Applied.CORRECTED
    assert kernel.read(kernel.encode(state), START_MS).values == [1.0, 2.0]


@given(streams(), st.sampled_from("abcdef"))
def test_a_recent_id_is_skipped_once_seen(events: list[Happening], event_id: str) -> None:
    """A second publication of an event changes nothing; after `dedupe` other ids it is no longer known."""
    state = fold_all(KERNEL, events)
    newest = state.newest
    apply(state, at(newest, event_id=event_id))
    before = KERNEL.encode(state)
    assert apply(state, at(newest, event_id=event_id)) is Applied.DUPLICATE
    assert KERNEL.encode(state) == before
    for other in ("one", "two", "three"):
        apply(state, at(newest, event_id=other))
    assert apply(state, at(newest, event_id=event_id)) is Applied.FOLDED


def test_without_dedupe_no_ids_are_kept() -> None:
    """`dedupe=0` folds every publication and stores no ids."""
    kernel = ViewKernel(FeatureView("all", EVENT, "who", [count()], dedupe=0))
    twice = kernel.encode(fold_all(kernel, [at(START_MS, event_id="a"), at(START_MS, event_id="a")]))
    assert kernel.read(twice, START_MS).values == [2.0]
    assert len(twice) == len(kernel.encode(fold_all(kernel, [at(START_MS)])))


@given(streams(), st.data())
def test_complete_says_whether_the_past_can_still_be_told(events: list[Happening], data: st.DataObject) -> None:
    """At and after the newest event all is complete; before, a window is complete exactly as far back as its tiles are kept, if no event that
    counts lies in the tile in which it ends.

    A view keeps the tiles of its longest window of each tile length before the newest event.
    """
    state, reference = fold_all(KERNEL, events), Reference(KERNEL.horizon_ms)
    for event in events:
        reference.offer(event)
    stored = KERNEL.encode(state)
    assert all(KERNEL.read(stored, state.newest + data.draw(st.integers(0, 10**10))).complete)
    back = data.draw(st.integers(0, 3 * HORIZON_MS))
    reading = KERNEL.read(stored, state.newest - back)
    if back <= CLOCKS_MS:
        back = 0
    kept_ms = {MINUTE_MS: 5 * MINUTE_MS, 5 * MINUTE_MS: 10 * MINUTE_MS, 15 * MINUTE_MS: 60 * MINUTE_MS}
    for feature, complete in zip(KERNEL.view.served, reading.complete, strict=True):
        if not feature.window.bounded:
            assert complete == (not back)
        else:
            tile_ms = feature.window.grid.tile_ms
            oldest = (state.newest - back - feature.window.reach_ms) // tile_ms
            kept = oldest >= (state.newest - kept_ms[tile_ms]) // tile_ms
            ends = [event.time_ms for event in reference.accepted if event.time_ms // tile_ms == (state.newest - back) // tile_ms]
            assert complete == (kept and not (back and ends))


def test_reading_far_outside_the_stream_never_raises() -> None:
    """The beginning and the end of time can be asked for."""
    stored = KERNEL.encode(fold_all(KERNEL, [at(START_MS)]))
    for time_ms in (-(2**53), 0, 2**53):
        assert len(KERNEL.read(stored, time_ms).values) == len(KERNEL.view.served)


@pytest.mark.parametrize("time_ms", [-(2**53), -1, 0, 2**53])
def test_any_time_a_message_may_carry_can_be_stored(time_ms: int) -> None:
    """Tile indices hold for every time that a record may have, with tiles as short as a millisecond."""
    kernel = ViewKernel(FeatureView("fine", EVENT, "who", [count()], windows=["10ms"], tile="1ms"))
    stored = kernel.encode(fold_all(kernel, [at(time_ms), at(time_ms + 5)]))
    assert kernel.read(stored, time_ms + 5).values == [2.0]


def test_the_definition_changes_with_what_tiles_mean() -> None:
    """A view that would store other tiles has another fingerprint; one that only reads the same tiles otherwise has not."""

    def definition(**changes: object) -> str:
        given = {"features": [mean("x"), std("x")], "windows": ["1h"], "tile": "5m", "dedupe": 8, **changes}
        return ViewKernel(FeatureView("view", EVENT, "who", **given)).definition  # type: ignore[arg-type]

    same = definition()
    assert definition() == same
    assert definition(description="words", ttl="1d") == same
    assert definition(windows=["30m", "1h"]) == same
    assert definition(features=[std("x")]) == same
    assert definition(features=[std("x"), max("x")]) != same
    assert definition(windows=["2h"]) != same
    assert definition(tile="1m") != same
    assert definition(dedupe=4) != same
    assert ViewKernel(FeatureView("view", EVENT, "y", [mean("x"), std("x")], windows=["1h"])).definition != same


@given(streams())
def test_the_reference_and_the_kernel_skip_the_same(events: list[Happening]) -> None:
    """Lateness and repetition follow the documented rules, event by event."""
    reference, state = Reference(HORIZON_MS), KERNEL.new_state()
    assert [apply(state, event).name for event in events] == [reference.offer(event) for event in events]
