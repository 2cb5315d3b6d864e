"""Windows and grids as values: which tiles, whether whole, and how they are written and said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.windows import EACH_MS, FOREVER, NO_HORIZON_MS, Grid, Lifetime, Tile, horizon_ms, sliding

TIMES = st.integers(-(2**53), 2**53)
FIVE = Grid(300_000)


@given(TIMES, st.integers(1, 10**9), st.integers(-(10**9), 10**9))
def test_a_time_lies_in_its_tile(time_ms: int, tile_ms: int, origin_ms: int) -> None:
    """The tile begins at or before it and ends after it."""
    grid = Grid(tile_ms, origin_ms)
    start_ms = grid.start_ms(grid.index(time_ms))
    assert start_ms <= time_ms < start_ms + tile_ms


@given(TIMES)
def test_for_ever_is_one_tile(time_ms: int) -> None:
    """Every time that a message can carry has the same."""
    assert FOREVER.index(time_ms) == 0
    assert FOREVER.tiles(0) == 0


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 60), st.lists(st.integers(-500, 500), max_size=20))
def test_a_grid_that_divides_another_shares_its_tiles(a: int, at: int, b: int, bt: int, times: list[int]) -> None:
    """Times in one tile of the finer lie in one tile of the coarser; every grid divides for ever, and milliseconds divide every grid."""
    fine, coarse = Grid(a, at), Grid(b, bt)
    if fine.divides(coarse):
        shared: dict[int, int] = {}
        for time_ms in times:
            assert shared.setdefault(fine.index(time_ms), coarse.index(time_ms)) == coarse.index(time_ms)
    assert fine.divides(FOREVER)
    assert EACH_MS.divides(fine)


@pytest.mark.parametrize(("kept_from", "whole"), [(-2, True), (-1, True), (0, False)])
def test_a_sliding_window_covers_what_it_touches(kept_from: int, whole: bool) -> None:
    """From the tile of its beginning to that of its end, whole while the first is kept."""
    window = sliding("10m", FIVE)
    assert window.at(300_001, 0, kept_from) == (-1, 1, whole)
    assert window.text(window.at(300_001, 0, 0)).startswith("tiles from 1969-12-31T23:55:00Z to 1970-01-01T00:05:00Z")
    assert window.starts_ms((2, 4, True)) == (600_000, 1_200_000)
    assert (window.suffix, window.reach_ms, window.written_ms, window.bounded) == ("_10m", 600_000, 600_000, True)


def test_a_whole_life_cannot_be_cut() -> None:
    """Its one tile tells of no time before the newest event."""
    window = Lifetime(FOREVER)
    assert [window.at(0, newest, 5) for newest in (-1, 0, 1)] == [(0, 0, True), (0, 0, True), (0, 0, False)]
    assert (window.suffix, window.reach_ms, window.written_ms, window.bounded) == ("", 0, None, False)
    assert (window.text((0, 0, True)), window.starts_ms((0, 0, True))) == ("all tiles", (None, None))


def test_tiles_are_written_and_said() -> None:
    """For machines by length and start, for persons in words."""
    assert [Tile(FIVE, 2).written, Tile(FOREVER, 0).written] == [(300_000, 600_000), (0, 0)]
    assert [Tile(FIVE, 2).text, Tile(FOREVER, 0).text] == ["5 min from 1970-01-01T00:10:00Z", "lifetime"]
    assert [FIVE.written_ms, FOREVER.written_ms, FIVE.text, FOREVER.text] == [300_000, 0, "5 min", "lifetime"]


def test_the_horizon_is_the_longest_reach() -> None:
    """With what may wait added; without a window there is none."""
    windows = [sliding("5m", FIVE), sliding("1h", FIVE), Lifetime(FOREVER)]
    assert horizon_ms(windows, 1_000) == 3_601_000
    assert horizon_ms(windows[2:], 0) == NO_HORIZON_MS > 2**54
