"""Side values: what a value looks like that has some, what is refused, and what the kinds do with late, tied and many events."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import EVENT, MINUTE_MS, START_MS, Happening, Values, fold_all, streams

from tidemill import FeatureView, count, distinct, first, last_k
from tidemill.declarations.aggregations import Value
from tidemill.declarations.distinct import EXACT, DifferentValues, count_of, hash_of
from tidemill.declarations.hyperloglog import REGISTERS, STANDARD_ERROR
from tidemill.declarations.last_k import NewestValues, values_of
from tidemill.errors import CorruptState
from tidemill.kernel.packed import Packing
from tidemill.kernel.served import serve
from tidemill.kernel.side import SidePacking
from tidemill.kernel.view import ViewKernel
from tidemill.proof.counterexample import differences

ONLY_SIDES = ViewKernel(FeatureView("sides", EVENT, "who", [distinct("word"), last_k("x", 2)], windows=["5m"], tile="1m", dedupe=2))
MIXED = ViewKernel(
    FeatureView(
        "mixed", EVENT, "who", [count(), last_k("x", 3, windows=["5m", "lifetime"])], windows=["5m", "1h"], tile="1m", tiles={"1h": "15m"}
    )
)
KERNELS = pytest.mark.parametrize("kernel", [ONLY_SIDES, MIXED], ids=["sides alone", "beside numbers"])


def at(minute: float, x: float | None = 1.0, word: str | None = "a") -> Happening:
    """One event."""
    return Happening(START_MS + int(minute * MINUTE_MS), None, Values(x, 1, True, word))


def values_at(kernel: ViewKernel, events: list[Happening], minute: float) -> dict[str, Value]:
    """The features after events, by name, from the stored bytes."""
    reading = kernel.read(kernel.encode(fold_all(kernel, events)), START_MS + int(minute * MINUTE_MS))
    return {feature.name: reading.value(i) for i, feature in enumerate(kernel.view.served)}


def test_only_views_with_side_values_are_packed_otherwise() -> None:
    """A view of numbers knows nothing of side values, and one with them says so by its packing."""
    assert type(ViewKernel(FeatureView("n", EVENT, "who", [count(), first("x")])).packing) is Packing
    assert type(ONLY_SIDES.packing) is type(MIXED.packing) is SidePacking


@KERNELS
@given(events=streams(max_size=30), data=st.data())
def test_a_value_with_side_values_survives_storing(kernel: ViewKernel, events: list[Happening], data: st.DataObject) -> None:
    """Stored and loaded between any two events, or never, the bytes are the same, and reading bytes is reading the state."""
    expected, state = fold_all(kernel, events), kernel.new_state()
    for event in events:
        kernel.apply(state, event.time_ms, event.id, event.values)
        if data.draw(st.booleans()):
            load = kernel.decode if data.draw(st.booleans()) else kernel.reopen
            state = load(kernel.write(state))  # type: ignore[arg-type]  # a value with side values is written whole
    stored = kernel.encode(state)
    assert stored == kernel.encode(expected)
    for offset in (-MINUTE_MS, 0, 4 * MINUTE_MS, 90 * MINUTE_MS):
        assert repr(kernel.read(stored, state.newest + offset)) == repr(kernel.read_state(state, state.newest + offset))


@KERNELS
def test_damage_is_noticed(kernel: ViewKernel) -> None:
    """Any byte changed, any end cut off, anything added, and noise: refused by reading and by loading, naming the view."""
    stored = kernel.encode(fold_all(kernel, [at(i, float(i), f"w{i}") for i in range(4)]))
    broken = [stored[:i] + bytes([stored[i] ^ 1 + i % 255]) + stored[i + 1 :] for i in range(len(stored))]
    broken += [stored[:i] for i in range(len(stored))] + [stored + b"\0", stored + stored, b"\xff" * 40]
    for value in broken:
        for use in (kernel.decode, lambda value: kernel.read(value, START_MS)):
            with pytest.raises(CorruptState, match=kernel.view.name):
                use(value)


def test_side_values_of_another_state_are_refused() -> None:
    """Two parts that are whole each, but not of one value."""
    one = ONLY_SIDES.encode(fold_all(ONLY_SIDES, [at(0)]))
    many = ONLY_SIDES.encode(fold_all(ONLY_SIDES, [at(i) for i in range(4)]))
    part, inner = int.from_bytes(one[4:8], "little") + 8, int.from_bytes(many[4:8], "little") + 8
    with pytest.raises(CorruptState, match="do not match its tiles"):
        ONLY_SIDES.decode(one[:part] + many[inner:])


def test_the_newest_values_go_by_event_time() -> None:
    """A late event takes its place among the others, of two at one time the later arrival is newer, null counts for nothing."""
    events = [at(0, 1.0), at(2, 2.0), at(1, 3.0), at(2, 4.0), at(3, None), at(2.5, 5.0)]
    assert values_at(MIXED, events, 3)["last_3_x_5m"] == [2.0, 4.0, 5.0]
    assert values_at(MIXED, events[:4], 3)["last_3_x"] == [3.0, 2.0, 4.0]
    assert values_at(MIXED, events, 30)["last_3_x"] == [2.0, 4.0, 5.0]
    gone = values_at(MIXED, events, 30)["last_3_x_5m"]
    assert isinstance(gone, float)
    assert math.isnan(gone)


def test_an_event_older_than_all_that_are_kept_changes_nothing() -> None:
    """The list is full, so the oldest has no place in it; at the time of the oldest it has, since it arrived later."""
    kind = NewestValues(2)
    full = kind.add(kind.add(b"", 5, 1.0), 6, 2.0)
    assert kind.add(full, 4, 9.0) == full
    assert values_of(kind.add(full, 5, 9.0)) == [9.0, 2.0]
    assert len(kind.add(full, 7, 3.0)) == kind.most_bytes
    assert kind.show(full) == "1.0, 2.0"


def test_a_list_is_served_as_a_list() -> None:
    """PRESENT with its values; without any, and before its window begins, it is no list."""
    state = fold_all(MIXED, [at(0, 1.5), at(1, 2.5)])
    served = serve(MIXED.view, MIXED.read_state(state, START_MS + MINUTE_MS), START_MS + MINUTE_MS)
    names = [feature.name for feature in MIXED.view.served]
    assert served.value(names.index("last_3_x_5m")) == [1.5, 2.5]
    assert served.statuses == ["PRESENT"] * len(names)
    later = serve(MIXED.view, MIXED.read_state(state, START_MS + 10**8), START_MS + 10**8)
    assert later.statuses[names.index("last_3_x_5m")] == "NULL_VALUE"
    assert later.value(names.index("last_3_x")) == [1.5, 2.5]


def test_serving_leaves_the_reading_as_it_was() -> None:
    """What is withheld of a reading is still in it."""
    reading = MIXED.read_state(fold_all(MIXED, [at(0), at(200)]), START_MS)
    before = repr(reading)
    assert "INVALID" in serve(MIXED.view, reading, START_MS).statuses
    assert repr(reading) == before


@given(st.lists(st.sampled_from([1, 1.0, True, 0.5, -2, 2**60, 2**60 + 1, "1", "a", "é", ""]), max_size=12), st.randoms())
def test_different_values_are_counted_whatever_their_order(values: list[float | str], shuffle: random.Random) -> None:
    """Each once, a number and its text being two, to the same bytes in any order and from any parts."""
    kind, held = DifferentValues(), b""
    for value in values:
        held = kind.add(held, 0, value)
    assert count_of(held) == len({(isinstance(value, str), value) for value in values})
    mixed = list(values)
    shuffle.shuffle(mixed)
    parts = [kind.add(b"", 0, value) for value in mixed]
    assert kind.merge(parts) == held


def test_beyond_the_bound_a_sketch_takes_over() -> None:
    """Exact to the last value that fits; then the bytes of a sketch, the same from any order, from parts and from parts of both kinds."""
    kind, held = DifferentValues(), b""
    for i in range(EXACT):
        held = kind.add(held, 0, f"v{i}")
    assert (count_of(held), len(held) < REGISTERS) == (EXACT, True)
    held = kind.add(held, 0, "one more")
    assert len(held) == kind.most_bytes == REGISTERS
    names = [*(f"v{i}" for i in range(EXACT)), "one more"]
    backwards, exact = b"", b""
    for name in reversed(names):
        backwards = kind.add(backwards, 0, name)
    for name in names[:40]:
        exact = kind.add(exact, 0, name)
    assert backwards == held == kind.merge([exact, held]) == kind.merge([held, backwards, exact])
    assert kind.show(held).startswith("about ")


@pytest.mark.parametrize("many", [300, 1_000, 4_000, 20_000])
def test_a_sketch_errs_as_stated(many: int) -> None:
    """Over sixteen sets the root of the mean squared error is that of the formula, and none is four times as far off."""
    kind, errors = DifferentValues(), []
    for seed in range(16):
        held = b""
        for i in range(many):
            held = kind.add(held, 0, f"{seed}.{i}")
        errors.append(count_of(held) / many - 1.0)
    assert max(map(abs, errors)) < 4 * STANDARD_ERROR
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < 1.5 * STANDARD_ERROR


def test_the_audit_names_the_side_value_that_differs() -> None:
    """Tile by tile, the values of a list and the digest of a count, in the open tile and in closed ones."""
    one, other = ([at(0, 1.0, "a"), at(1, 2.0, word), at(2, x, "c")] for word, x in (("b", 3.0), ("B", 4.0)))
    found = differences(ONLY_SIDES, *(ONLY_SIDES.encode(fold_all(ONLY_SIDES, events)) for events in (one, other)))
    shown = [(item.tile.text if item.tile else "", item.slot, item.stored, item.expected) for item in found]
    assert ("lifetime", "last_k 2(x)", "2.0, 3.0", "2.0, 4.0") in shown
    assert [slot for place, slot, _, _ in shown if place.startswith("1 min")] == ["distinct(word)"]


def test_hashes_are_the_same_for_ever() -> None:
    """Stored values hold them: pinned for a text, a whole number and a fraction."""
    assert [hash_of(value).hex() for value in ("café", 7, 7.0, 0.5)] == PINNED


PINNED = ["d53c6a79a720d0b7", "eac1b8006d1d000d", "eac1b8006d1d000d", "2763663e6f8ca095"]
