"""What a log had lately: the rule, said again without forgetting anything, and what is kept in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.recent import Recent, part_ms
from tidemill.kernel.view import ViewKernel
from tidemill.records import ViewRecord, encode

MINUTE_MS = 60_000
SHOP = Event("bought", {"shop": str, "at": int, "id": str}, time="at", id="id")
VIEW = FeatureView("shops", SHOP, "shop", [count()])
KERNEL = ViewKernel(VIEW)
Told = tuple[bytes, str, int]
TOLD = st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from("xyz"), st.integers(0, 120))


def naive(log: list[Told], told: Told) -> bool:
    """Whether a record repeats one of the log, by the rule; minutes, and thirds of half an hour."""
    entity, event_id, minute = told
    compared = list[Told]()
    for one in log:
        if one[2] // 10 >= max((other[2] // 10 for other in compared), default=0) - 1:
            compared.append(one)
    if minute // 10 < max((other[2] // 10 for other in compared), default=0) - 1:
        return False
    return any(one[:2] == (entity, event_id) and abs(one[2] // 10 - minute // 10) <= 3 for one in compared)


@given(st.lists(TOLD, max_size=30))
def test_the_rule(log: list[Told]) -> None:
    """In whatever order records become known, each is a repetition exactly where the rule says so; a copy says the same."""
    recent, before = Recent(30 * MINUTE_MS), list[Told]()
    for entity, event_id, minute in log:
        other = recent.copy()
        found = recent.again(entity, event_id, minute * MINUTE_MS)
        assert found == naive(before, (entity, event_id, minute)) == other.again(entity, event_id, minute * MINUTE_MS)
        before.append((entity, event_id, minute))


def test_at_least_so_long_and_a_third_longer() -> None:
    """What was known half an hour before is known, wherever the parts begin; what was known 40 minutes before is not."""
    for begin in range(0, 10 * MINUTE_MS, 7_919):
        recent = Recent(30 * MINUTE_MS)
        assert not recent.again(b"a", "x", begin)
        assert recent.copy().again(b"a", "x", begin + 30 * MINUTE_MS)
        assert not recent.again(b"a", "x", begin + 40 * MINUTE_MS)


def test_a_batch_of_any_size_counts_once() -> None:
    """5,000 events of one entity, and all of them again: the fold counts each once, and the fence the others."""
    decode = entry_decoder(VIEW)
    fold, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    for again in range(2):
        records = [
            encode(ViewRecord(i, MINUTE_MS * again, (0, 5_000 * again + i), {}, f"e{i}"))
            for i in range(5_000)
        ]  # fmt: skip
        fold.advance([decode(5_000 * again + i, b"shop", record) for i, record in enumerate(records)], states)
    assert KERNEL.read_state(states[b"shop"], 5_000).values == [5_000.0]
    assert fold.fence.duplicates == 5_000


def test_what_is_long_gone_is_forgotten() -> None:
    """After a day of events as many are held as of some fifty minutes."""
    recent = Recent(30 * MINUTE_MS)
    for minute in range(24 * 60):
        recent.again(b"a", f"e{minute}", minute * MINUTE_MS)
        assert len(recent) <= 50
    assert recent.kept_ms == 50 * MINUTE_MS


def test_parts_are_never_nothing() -> None:
    """A time that three does not divide, or of less than three milliseconds, is still remembered whole."""
    assert [part_ms(for_ms) for for_ms in (1, 2, 3, 4, 1_800_000)] == [1, 1, 1, 2, 600_000]


def test_a_view_that_counts_ids_has_no_memory() -> None:
    """`dedupe` as a number is the ids of the state alone, and another definition."""
    counted = ViewKernel(FeatureView("shops", SHOP, "shop", [count()], dedupe=8))
    assert counted.new_recent() is None
    assert counted.definition != KERNEL.definition
    assert KERNEL.definition == ViewKernel(FeatureView("shops", SHOP, "shop", [count()], dedupe="1800s")).definition
