"""What a log had lately: the rule, said again without forgetting anything, and what is kept in memory."""

from __future__ import annotations

import random
import tracemalloc
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count
from tidemill.kernel import recent
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.recent import Recent, kept_ms, part_ms
from tidemill.kernel.view import ViewKernel
from tidemill.records import ViewRecord, encode

MINUTE_MS = 60_000
SHOP = Event("bought", {"shop": str, "at": int, "id": str}, time="at", id="id")
VIEW = FeatureView("shops", SHOP, "shop", [count()])
KERNEL = ViewKernel(VIEW)
Told = tuple[bytes, str, int]
TOLD = st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from("xyz"), st.integers(0, 120))


class Log:
    """A log told record by record. Minutes; thirds of half an hour have ten."""

    def __init__(self) -> None:
        self.recent, self.end = Recent(30 * MINUTE_MS), 0

    def again(self, entity: bytes, event_id: str, minute: int) -> bool:
        """What the memory says of the next record."""
        if minute * MINUTE_MS >= self.recent.turn_ms:
            self.recent.turn(minute * MINUTE_MS, self.end)
        self.end += 1
        return self.recent.again(entity, event_id)


def naive(log: list[Told], told: Told) -> bool:
    """Whether a record repeats one of the log, by the rule."""
    thirds = list(accumulate((minute // 10 for _, _, minute in [*log, told]), max))
    return any(one[:2] == told[:2] and thirds[-1] - third <= 3 for one, third in zip(log, thirds, strict=False))


def packed(records: int) -> pytest.MonkeyPatch:
    """From so many records on, sets are packed into arrays; until it is undone."""
    patch = pytest.MonkeyPatch()
    patch.setattr(recent, "PACK_RECORDS", records)
    return patch


@given(st.lists(TOLD, max_size=30), st.sampled_from([1, 2, 5, 100]))
def test_the_rule(told: list[Told], pack: int) -> None:
    """In whatever order records become known, each is a repetition exactly where the rule says so; a copy says the same, packed or not."""
    patch, log = packed(pack), Log()
    for i, (entity, event_id, minute) in enumerate(told):
        copied = Log()
        copied.recent, copied.end = log.recent.copy(), log.end
        expected = naive(told[:i], told[i])
        assert log.again(entity, event_id, minute) == expected == copied.again(entity, event_id, minute)
    patch.undo()


@given(st.lists(TOLD, max_size=30), TOLD, st.sampled_from([1, 2, 5, 100]))
def test_what_is_remembered_again_is_the_same(told: list[Told], more: Told, pack: int) -> None:
    """From the turns, and all records of the log since the first of them, comes a memory that answers alike."""
    log = Log()
    for one in told:
        log.again(*one)
    patch, other = packed(pack), Log()
    other.recent, other.end = Recent(30 * MINUTE_MS, log.recent.turns), log.end
    for offset, (entity, event_id, _) in enumerate(told):
        if offset >= log.recent.turns[0][1]:
            other.recent.remember(offset, entity, event_id)
    assert (other.recent.turns, other.recent.turn_ms) == (log.recent.turns, log.recent.turn_ms)
    assert log.recent.records <= other.recent.records <= len(told)
    assert log.again(*more) == other.again(*more)
    assert other.recent.turns == log.recent.turns
    patch.undo()


@pytest.mark.slow
def test_a_long_log() -> None:
    """Of 300,000 records some were there at any distance: each is found exactly where a dict of all newest parts says so, in some 25 bytes each.

    The records of an hour and a half; one of ten repeats an earlier one. Remembered are those of the last 30 to 40 minutes.
    """
    draw, log, newest, wrong = random.Random(1), Log(), dict[str, int](), 0
    minutes = [i * 90 // 300_000 for i in range(300_000)]
    ids = [f"e{i if draw.random() < 0.9 else draw.randrange(max(1, i))}" for i in range(300_000)]
    for event_id, minute in zip(ids, minutes, strict=True):
        expected = minute // 10 - newest.get(event_id, -9) <= 3
        newest[event_id] = minute // 10
        wrong += log.again(b"a", event_id, minute) != expected
    assert wrong == 0
    log_again = Recent(30 * MINUTE_MS, log.recent.turns)
    tracemalloc.start()
    for offset in range(log.recent.turns[0][1], 300_000):
        log_again.remember(offset, b"a", ids[offset])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 100_000 < log_again.records < 140_000
    assert held < 25 * log_again.records


def test_what_comes_again_and_again_is_held_once() -> None:
    """A publisher that sends the same 200 events for ever makes a memory of 200 events, packed or not."""
    patch, log = packed(50), Log()
    assert [log.again(b"a", f"e{i % 200}", 1) for i in range(10_000)] == [False] * 200 + [True] * 9_800
    assert log.recent.records <= 200 + 50
    patch.undo()


def test_at_least_so_long_and_a_third_longer() -> None:
    """What was known half an hour before is known, wherever the parts begin; what was known 40 minutes before is not."""
    for begin in range(10):
        log = Log()
        assert not log.again(b"a", "x", begin)
        other = Log()
        other.recent = log.recent.copy()
        assert other.again(b"a", "x", begin + 30)
        assert not log.again(b"a", "x", begin + 40)


def test_wrong_moments_are_no_way_around() -> None:
    """A publisher whose clock is a day behind, history that is played beside live events, and a partition that lags: what comes again counts once."""
    log = Log()
    assert not log.again(b"live", "a", 10_000)
    for minute in (10_000 - 1_440, 5, 9_965):
        assert [log.again(b"lags", f"m{minute}", at) for at in (minute, minute + 1, minute)] == [False, True, True]
    assert not log.again(b"live", "b", 10_030)
    assert log.again(b"lags", "m5", 40)
    assert log.recent.turns == [(1_000, 0), (1_003, 10)]


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
    assert fold.fence.turns == [(0, 0)]


def test_a_record_that_ingestion_sent_again_is_told_too() -> None:
    """It counts as resent. What the log has is all that a memory is read from, so its publisher's copy half an hour later counts as a duplicate."""
    decode = entry_decoder(VIEW)
    fold, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    log = [(0, 0, "a"), (100, 1, "b"), (0, 0, "a"), (130, 2, "a")]
    records = [encode(ViewRecord(minute, MINUTE_MS * minute, (0, place), {}, event_id)) for minute, place, event_id in log]
    fold.advance([decode(i, b"shop", record) for i, record in enumerate(records)], states)
    assert (fold.fence.resent, fold.fence.duplicates, fold.fence.turns) == (1, 1, [(10, 1), (13, 3)])


def test_what_is_long_gone_is_forgotten() -> None:
    """After a day of events as many are held as of forty minutes."""
    log = Log()
    for minute in range(24 * 60):
        log.again(b"a", f"e{minute}", minute)
        assert log.recent.records <= 40
    assert kept_ms(30 * MINUTE_MS) == 40 * MINUTE_MS


def test_parts_are_never_nothing() -> None:
    """A time that three does not divide, or of less than three milliseconds, is still remembered whole."""
    assert [part_ms(for_ms) for for_ms in (1, 2, 3, 4, 1_800_000)] == [1, 1, 1, 2, 600_000]


def test_a_view_that_counts_ids_has_no_memory() -> None:
    """`dedupe` as a number is the ids of the state alone, and another definition."""
    counted = ViewKernel(FeatureView("shops", SHOP, "shop", [count()], dedupe=8))
    assert counted.new_recent() is None
    assert counted.definition != KERNEL.definition
    assert KERNEL.definition == ViewKernel(FeatureView("shops", SHOP, "shop", [count()], dedupe="1800s")).definition
