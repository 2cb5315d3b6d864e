"""Events that erase their entity: nothing of what was before shows in a value or in its bytes, but for the recent ids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import (
    EVENT,
    MINUTE_MS,
    READ_OFFSETS_MS,
    START_MS,
    Happening,
    Reference,
    Values,
    everything,
    fold_all,
    numbers,
    streams,
)

from tidemill import FeatureView, count, last
from tidemill.checksums import proof_of
from tidemill.kernel.fold import LogEntry, PartitionFold, entry_decoder
from tidemill.kernel.packed import NEVER, EntityState, Patch
from tidemill.kernel.served import serve
from tidemill.kernel.view import Applied, ViewKernel
from tidemill.records import ViewRecord, encode

ERASE = "flag and x > 0"
KERNELS = (everything(ERASE), numbers(ERASE))
PLAIN = (everything(), numbers())
HORIZON_MS = 60 * MINUTE_MS


def erases(values: Values) -> bool:
    """The condition in plain Python; a null never erases."""
    return values.flag and values.x is not None and values.x > 0


def happened(minute: float, erased: bool = False, event_id: str | None = None, x: float = 1.0) -> Happening:
    """An event of a minute."""
    return Happening(START_MS + int(minute * MINUTE_MS), event_id, Values(x, 1, erased))


def apply(kernel: ViewKernel, state: EntityState, event: Happening) -> Applied:
    """Folds one event."""
    return kernel.apply(state, event.time_ms, event.id, event.values)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS, ids=["everything", "numbers"])
@given(events=streams(), offset=st.sampled_from(READ_OFFSETS_MS))
def test_every_event_does_what_the_reference_says(kernel: ViewKernel, events: list[Happening], offset: int) -> None:
    """Which events erase, count, or do not; an erased entity is not found; any other has the events since it was erased."""
    reference, state = Reference(HORIZON_MS, erases), kernel.new_state()
    for event in events:
        assert apply(kernel, state, event).name == reference.offer(event)
        time_ms = event.time_ms + abs(offset)
        served = serve(kernel.view, kernel.read(kernel.encode(state), time_ms), time_ms)
        assert set(served.statuses) == {"NOT_FOUND"} or reference.accepted
        assert served.newest_ms == (reference.newest_ms if reference.accepted else None)
        for i, feature in enumerate(kernel.view.served):
            if served.statuses[i] == "PRESENT":
                expected, near = reference.value(feature, time_ms), 1e-9 * (1 + reference.scale() ** 2)
                assert served.value(i) == (pytest.approx(expected, rel=1e-6, abs=near) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(("kernel", "plain"), [*zip(KERNELS, PLAIN, strict=True)], ids=["everything", "numbers"])
@given(before=streams(), after=streams())
def test_nothing_of_before_is_kept_but_ids(kernel: ViewKernel, plain: ViewKernel, before: list[Happening], after: list[Happening]) -> None:
    """Later events fold to the bytes of an entity that never had any others."""
    state = fold_all(kernel, [*before, happened(0, erased=True)])
    assert state.newest == NEVER
    fresh = plain.new_state()
    fresh.ids = state.ids
    assert kernel.encode(state) == plain.encode(fresh)
    after = [event for event in after if not erases(event.values)]
    assert kernel.encode(fold_all(kernel, after, state)) == plain.encode(fold_all(plain, after, fresh))


@pytest.mark.parametrize("kernel", KERNELS, ids=["everything", "numbers"])
@given(events=streams(max_size=40), data=st.data())
def test_a_stored_value_is_the_state(kernel: ViewKernel, events: list[Happening], data: st.DataObject) -> None:
    """Stored and loaded between any two events, whole or by patches, the bytes are the same as if it had never left."""
    whole, state, stored = kernel.new_state(), kernel.new_state(), b""
    for event in events:
        apply(kernel, whole, event)
        apply(kernel, state, event)
        if data.draw(st.booleans()):
            written = kernel.write(state)
            if isinstance(written, Patch):
                changed = bytearray(stored)
                for place, piece in written.pieces:
                    changed[place : place + len(piece)] = piece
                written = bytes(changed)
            stored = written
            assert stored == kernel.encode(whole)
            state = kernel.decode(stored)


def test_an_entity_that_is_erased_takes_little_room() -> None:
    """A value of many tiles is as short as that of a new entity, and its ids stay."""
    kernel = KERNELS[1]
    state = fold_all(kernel, [happened(minute, event_id=f"e{minute}") for minute in range(180)])
    long, ids = len(kernel.encode(state)), state.recent_ids
    apply(kernel, state, happened(180, erased=True))
    assert len(kernel.encode(state)) == len(kernel.encode(kernel.new_state())) + 8 * len(ids) < long / 3
    assert state.recent_ids == ids


def test_the_order_of_the_log_decides() -> None:
    """Whatever its time, an event erases what lies before it in the log; one that is older than that, and comes later, begins anew."""
    kernel = KERNELS[0]
    state = fold_all(kernel, [happened(0), happened(600)])
    assert apply(kernel, state, happened(1)) is Applied.LATE
    assert apply(kernel, state, happened(2, erased=True)) is Applied.ERASED, "too late to be folded, not to erase"
    assert apply(kernel, state, happened(1)) is Applied.FOLDED, "as into a new entity"
    assert apply(kernel, state, happened(0)) is Applied.CORRECTED
    assert kernel.read_state(state, START_MS + 2 * MINUTE_MS).newest_ms == START_MS + MINUTE_MS


def test_an_event_erases_once() -> None:
    """Its second publication changes nothing, and neither does that of an event which it erased."""
    kernel = KERNELS[0]
    state = fold_all(kernel, [happened(0, event_id="a"), happened(1, erased=True, event_id="b"), happened(2, event_id="c")])
    before = kernel.encode(state)
    for again in (happened(1, erased=True, event_id="b"), happened(0, event_id="a")):
        assert apply(kernel, state, again) is Applied.DUPLICATE
    assert kernel.encode(state) == before
    assert apply(kernel, state, happened(1, erased=True)) is Applied.ERASED, "nothing knows an event without an id again"


def test_a_null_does_not_erase() -> None:
    """Nor does a field that the event did not have."""
    kernel = KERNELS[0]
    state = fold_all(kernel, [Happening(START_MS, None, Values(None, 1, True))])
    assert state.newest == START_MS
    assert not kernel.erases(Values(None, 1, True))
    assert not PLAIN[0].erases(Values(1.0, 1, True))


def test_what_waits_is_erased_too() -> None:
    """Where events wait for their time, an erasing one does not: it erases all that came before it, also what no window has seen yet."""
    view = FeatureView("waiting", EVENT, "who", [count(), last("x", windows=["1h"])], windows=["1h"], ahead="30m", erase="flag")
    kernel = ViewKernel(view)
    state = fold_all(kernel, [happened(-300), happened(0), happened(20)])
    assert kernel.packing.passed(state.head) != NEVER
    assert apply(kernel, state, happened(25, erased=True)) is Applied.ERASED
    assert kernel.packing.passed(state.head) == NEVER
    assert kernel.read_state(state, START_MS + 40 * MINUTE_MS).newest_ms is None
    apply(kernel, state, happened(10))
    for minute, seen in ((4, None), (12, [1.0, 1.0])):
        reading = kernel.read_state(state, START_MS + minute * MINUTE_MS)
        assert reading.newest_ms == (None if seen is None else START_MS + 10 * MINUTE_MS)
        assert seen is None or reading.values == seen


def test_a_fold_counts_what_erases_as_folded() -> None:
    """The entity is written; an erasing event is not late, and a second one of it is a duplicate. A record without an entity makes one."""
    kernel = KERNELS[0]
    decode = entry_decoder(kernel.view)

    def entry(offset: int, key: bytes, event: Happening) -> LogEntry:
        values = {name: getattr(event.values, name) for name in kernel.view.value_fields}
        found = encode(ViewRecord(event.time_ms, event.time_ms, (0, offset), values, event.id))
        assert decode(offset, key, found).proof == proof_of(key, found)
        return decode(offset, key, found)

    fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
    fold.advance([entry(0, b"a", happened(0)), entry(1, b"a", happened(600))], states)
    progress = fold.advance(
        [entry(2, b"a", happened(1, True, "x")), entry(3, b"a", happened(1, True, "x")), entry(4, b"b", happened(0, True))], states
    )
    assert (progress.touched, progress.folded, progress.refused, progress.late_by_ms) == ({b"a", b"b"}, 2, [], [])
    assert (fold.fence.duplicates, fold.fence.late, fold.fence.next) == (1, 0, 5)
    assert [math.isnan(value) for state in states.values() for value in kernel.read_state(state, START_MS).values[:1]] == [True, True]
