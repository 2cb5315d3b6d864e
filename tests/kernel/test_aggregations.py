"""Every aggregation there is, found by class, against the naive oracle it carries."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import (
    ASKEW,
    COLUMNS,
    FEW,
    MINUTE_MS,
    READ_OFFSETS_MS,
    START_MS,
    TILES,
    WINDOWS,
    Happening,
    Reference,
    Values,
    features_of,
    fold_all,
    streams,
    view_of,
)
from tests.oracles import aggregation_kinds, expected

import tidemill
from tidemill import count
from tidemill.declarations.aggregations import Aggregation, Mean, Std, Sum, Value
from tidemill.kernel.view import ViewKernel

KINDS = aggregation_kinds()
SUMMED = (Mean, Std, Sum)  # their last digits depend on the order of addition; every other kind is exact
CONDITIONS = COLUMNS[2:]


def test_every_aggregation_is_discovered() -> None:
    """The walk over subclasses finds all kinds, each under the word by which a project calls it."""
    assert {"Age", "Count", "Distinct", "First", "FirstText", "Last", "LastK", "LastText", "Max", "Mean", "Min", "Rate", "Std", "Sum"} <= {
        kind.__name__ for kind in KINDS
    }
    called = [kind for kind in KINDS if "word" in vars(kind)]
    assert len({kind.word for kind in called}) == len(called)
    for kind in called:
        made = getattr(tidemill, kind.word)("x", name="named", **FEW.get(kind, {}))
        assert type(made) is kind
        assert (made.column, made.label) == ("x", "named")
    for kind in set(KINDS) - set(called):
        becomes = getattr(tidemill, kind.word)("word", name="named").over_text()
        assert (type(becomes), becomes.column, becomes.label) == (kind, "word", "named")


def assert_same(found: Value, wanted: Value) -> None:
    """Equal to the bit."""
    assert repr(found) == repr(wanted) or found == wanted


def assert_agrees(aggregation: Aggregation, found: Value, expected: Value, scale: float) -> None:
    """Equal to the bit; within rounding for what is summed, unless it is a sum of ones."""
    ones = aggregation.column in CONDITIONS and not isinstance(aggregation, Std)
    if repr(expected) == "nan" or ones or not isinstance(aggregation, SUMMED):
        assert_same(found, expected)
    else:
        # For the deviation, a rounding error of eps * scale in M2's inputs shows as sqrt(eps) * scale where the true value is zero.
        slack = 1e-6 if isinstance(aggregation, Std) else 1e-12
        assert found == pytest.approx(expected, rel=1e-9, abs=slack * scale)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_online_equals_oracle_after_every_prefix(kind: type[Aggregation], data: st.DataObject) -> None:
    """Folded, stored, loaded and merged at any time, a value is what the oracle computes from all events in the window's tiles.

    A value that lacks something says so: whatever is flagged complete must agree although the reference forgets nothing.
    """
    view = view_of(features_of(kind), data.draw(st.sampled_from([TILES, ASKEW])))
    kernel = ViewKernel(view)
    reference, state = Reference(60 * MINUTE_MS), kernel.new_state()
    offsets = data.draw(st.lists(st.sampled_from(READ_OFFSETS_MS), min_size=2, max_size=3, unique=True))
    for event in data.draw(streams()):
        assert kernel.apply(state, event.time_ms, event.id, event.values).name == reference.offer(event)
        stored = kernel.encode(state)
        state = kernel.decode(stored)
        for offset in offsets:
            time_ms = reference.newest_ms + offset
            reading = kernel.read(stored, time_ms)
            assert reading.newest_ms == reference.newest_ms
            for i, (feature, complete) in enumerate(zip(view.served, reading.complete, strict=True)):
                assert complete or offset < 0
                if complete:
                    assert_agrees(feature.aggregation, reading.value(i), reference.value(feature, time_ms), reference.scale())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(events=streams())
def test_windows_empty_as_time_passes(kind: type[Aggregation], events: list[Happening]) -> None:
    """Long after the last event every window is what the oracle says of no events, and only what lasts for life stays."""
    view = view_of(features_of(kind))
    kernel = ViewKernel(view)
    state = fold_all(kernel, events)
    reading = kernel.read(kernel.encode(state), state.newest + 10**9)
    for i, feature in enumerate(view.served):
        if feature.window.bounded:
            assert_same(reading.value(i), expected(feature.aggregation, [], state.newest + 10**9))
    assert all(reading.complete)


@given(
    st.lists(st.floats(-1.0, 1.0, allow_subnormal=False), min_size=2, max_size=60),
    st.sampled_from([0.0, 1e3, 1e6]),
    st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_std_keeps_its_digits_far_from_zero(shape: list[float], centre: float, spread: float) -> None:
    """A deviation of a thousandth around a million survives folding over several tiles and merging them."""
    values = [centre + spread * (value + i % 2) for i, value in enumerate(shape)]
    view = view_of([Std(column="x")])
    kernel = ViewKernel(view)
    events = [Happening(START_MS + i * 45_000, None, Values(value, 0, False)) for i, value in enumerate(values)]
    reading = kernel.read(kernel.encode(fold_all(kernel, events)), events[-1].time_ms)
    expected = statistics.stdev(values)
    assert reading.values[3] == pytest.approx(expected, rel=1e-5, abs=1e-9 * max(abs(value) for value in values))


@pytest.mark.parametrize(("centre", "spread"), [(0.0, 1e-9), (1e6, 1e-3), (-1e6, 1e-3), (1e9, 1.0), (0.0, 1e9)])
def test_std_of_many_events_in_one_tile(centre: float, spread: float) -> None:
    """Ten thousand values in one tile give the textbook's deviation to five digits, whatever their size."""
    values = [centre + spread * ((i * 7919) % 1000 / 500 - 1) for i in range(10_000)]
    kernel = ViewKernel(view_of([Std(column="x")]))
    stored = kernel.encode(fold_all(kernel, [Happening(START_MS, None, Values(value, 0, False)) for value in values]))
    assert kernel.read(stored, START_MS).values == pytest.approx([statistics.stdev(values)] * len(WINDOWS), rel=1e-5)


@pytest.mark.parametrize("numbers", [[1e308, 1e308, -1e308], [5e-324, -5e-324], [1e308, -1e308, 0.0]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_numbers_never_raise(numbers: list[float]) -> None:
    """The largest and smallest floats may overflow a sum but are folded, stored and read."""
    kernel = ViewKernel(view_of([feature for kind in KINDS for feature in features_of(kind)]))
    events = [Happening(START_MS + i * 61_000, None, Values(x, 2**63 - 1, True)) for i, x in enumerate(numbers)]
    stored = kernel.encode(fold_all(kernel, events))
    assert kernel.encode(kernel.decode(stored)) == stored
    reading = kernel.read(stored, events[-1].time_ms)
    values = {feature.name: value for feature, value in zip(kernel.view.served, reading.values, strict=True)}
    assert values["max_0"] == max(numbers)
    assert values["min_0_2m"] == min(numbers)


def test_a_count_of_a_column_leaves_nulls_out() -> None:
    """count() counts events, count("x") those with an x, and both agree for a column that is never null."""
    view = view_of([count(windows=["1h"]), count("x", windows=["1h"]), count("y", windows=["1h"])])
    kernel = ViewKernel(view)
    events = [Happening(START_MS + i, None, Values(x, 1, True)) for i, x in enumerate([None, 1.0, None, 2.0, None])]
    assert kernel.read(kernel.encode(fold_all(kernel, events)), START_MS).values == [5.0, 2.0, 5.0]
    assert len(kernel.resolutions[0].layout.slots) == 2
