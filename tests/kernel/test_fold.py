"""Folding a partition of a view topic: what is skipped and counted, and that any cut gives the same bytes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.streams import MINUTE_MS, START_MS, Happening, Reference, Values, everything, fold_all, streams

from tidemill.checksums import proof_of
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry, PartitionFold, empty_fence, entities_of, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.records import ViewRecord, encode

KERNEL = everything()
DECODE = entry_decoder(KERNEL.view)
GOOD = ViewRecord(time=1, known=2, source=(0, 0), values={"x": 1.0, "y": 2, "flag": True}, id="a")
NOISE = [None, b"", b"{", b"\xff", b"null", b"[]", b"{}", b"[" * 5000, b'{"deep":' + b"[" * 5000]


@dataclass(frozen=True)
class Sent:
    """One record as it lies on a topic, and what it carries (None: noise)."""

    key: bytes | None
    value: bytes | None
    happening: Happening | None
    source: tuple[int, int]


@st.composite
def logs(draw: st.DrawFn) -> list[Sent]:
    """Records of three entities from two source partitions; some noise, some sent again by ingestion, some published twice."""
    offsets, log = [0, 0], []
    for event in draw(streams(max_size=25)):
        partition = draw(st.integers(0, 1))
        fate = draw(st.sampled_from(["new", "new", "new", "resent", "noise"]))
        key = draw(st.sampled_from([b"a", b"b", "ü".encode()]))
        if fate == "noise":
            log.append(Sent(draw(st.sampled_from([key, None, b"\xff"])), draw(st.sampled_from(NOISE)), None, (0, 0)))
            continue
        offsets[partition] += fate == "new"
        back = draw(st.integers(0, 3)) if fate == "resent" else 0
        log.append(sent(key, event, (partition, max(0, offsets[partition] - back))))
    return log


def sent(key: bytes, event: Happening, source: tuple[int, int]) -> Sent:
    """A record as ingestion makes it."""
    values: dict[str, Any] = {"x": event.values.x, "y": event.values.y, "flag": event.values.flag, "word": event.values.word}
    record = ViewRecord(time=event.time_ms, known=event.time_ms + 5, source=source, values=values, id=event.id)
    return Sent(key, encode(record), event, source)


def entries_of(log: list[Sent], first: int = 0) -> list[LogEntry]:
    """The log as a worker decodes it."""
    return [DECODE(first + i, record.key, record.value) for i, record in enumerate(log)]


def stored(states: dict[bytes, EntityState]) -> dict[bytes, bytes]:
    """What a store would hold."""
    return {key: KERNEL.encode(state) for key, state in states.items()}


@given(logs())
def test_fold_skips_and_counts_by_the_documented_rules(log: list[Sent]) -> None:
    """Poison, records sent again, duplicates and late events are each counted once and leave no trace in any state."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    entries = entries_of(log)
    progress = fold.advance(entries, states)

    counts = dict.fromkeys(["FOLDED", "CORRECTED", "DUPLICATE", "RESENT", "LATE", "POISON"], 0)
    refused, late_by_ms = [], []
    references: dict[bytes, Reference] = {}
    sources: dict[int, int] = {}
    for offset, record in enumerate(log):
        if record.happening is None:
            counts["POISON"] += 1
            refused.append(("poison", offset, 0))
        elif record.source[1] <= sources.get(record.source[0], -1):
            counts["RESENT"] += 1
        else:
            sources[record.source[0]] = record.source[1]
            assert record.key is not None
            reference = references.setdefault(record.key, Reference(60 * MINUTE_MS))
            fate = reference.offer(record.happening)
            counts[fate] += 1
            if fate in ("CORRECTED", "LATE"):
                late_by_ms.append(reference.newest_ms - record.happening.time_ms)
            if fate == "LATE":
                refused.append(("late", offset, reference.newest_ms))

    fence = fold.fence
    assert (fence.duplicates, fence.resent, fence.late, fence.poison) == tuple(counts[k] for k in ("DUPLICATE", "RESENT", "LATE", "POISON"))
    assert (fence.next, fence.sources, progress.folded) == (len(log), sources, counts["FOLDED"] + counts["CORRECTED"])
    assert [(reason, entry.offset, newest_ms) for reason, entry, newest_ms in progress.refused] == refused
    assert progress.late_by_ms == late_by_ms
    assert fence.proof == proof_of(log[-1].key, log[-1].value)
    assert progress.touched == set(references) == set(states) <= entities_of(entries)
    assert stored(states) == {key: KERNEL.encode(fold_all(KERNEL, reference.accepted)) for key, reference in references.items()}
    folded = [event.time_ms + 5 for reference in references.values() for event in reference.accepted]
    assert progress.oldest_known_ms == min(folded, default=None)


def test_each_fate_of_a_record() -> None:
    """One record of each kind, at the edges: what the fence counts, what is refused, and how late each late event was."""
    newest_ms, horizon_ms = START_MS + 7 * 60 * MINUTE_MS, 60 * MINUTE_MS
    times = {"newest": newest_ms, "corrected": newest_ms - horizon_ms, "late": newest_ms - horizon_ms - 1, "duplicate": newest_ms}
    ids = {"newest": "a", "duplicate": "a"}
    log = [
        sent(b"a", Happening(time_ms, ids.get(fate), Values(1.0, 2, True)), (0, offset))
        for offset, (fate, time_ms) in enumerate(times.items())
    ]
    log += [log[0], Sent(b"a", b"noise", None, (0, 0))]
    fold, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    progress = fold.advance(entries_of(log), states)
    assert (progress.touched, progress.folded, progress.late_by_ms) == ({b"a"}, 2, [horizon_ms, horizon_ms + 1])
    assert [(reason, entry.offset, newest) for reason, entry, newest in progress.refused] == [("late", 2, newest_ms), ("poison", 5, 0)]
    fence = fold.fence
    assert (fence.next, fence.duplicates, fence.resent, fence.late, fence.poison) == (6, 1, 1, 1, 1)


def test_a_rebuild_ends_at_its_offset() -> None:
    """The fence keeps `until` while records below it are missing, and has none from then on."""
    fold = PartitionFold(KERNEL, empty_fence(KERNEL, until=2))
    found = [fold.fence.until]
    for offset in range(3):
        fold.advance([DECODE(offset, b"a", encode(GOOD))], {})
        found.append(fold.fence.until)
    assert found == [2, 2, 0, 0]


@given(logs(), st.data())
def test_fold_in_pieces_equals_fold_at_once(log: list[Sent], data: st.DataObject) -> None:
    """Cut anywhere, with fence and states stored and loaded between, the bytes of both are the same."""
    whole, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    whole.advance(entries_of(log), states)
    expected = stored(states)

    fence, store = empty_fence(KERNEL).encode(), dict[bytes, bytes]()
    cuts = sorted({0, len(log), *data.draw(st.sets(st.integers(0, len(log))))})
    for start, end in itertools.pairwise(cuts):
        piece = PartitionFold(KERNEL, Fence.decode(fence))
        entries = entries_of(log[start:end], start)
        loaded = {key: KERNEL.decode(store[key]) for key in entities_of(entries) if key in store}
        progress = piece.advance(entries, loaded)
        store |= {key: KERNEL.encode(loaded[key]) for key in progress.touched}
        fence = piece.fence.encode()
    assert (fence, store) == (whole.fence.encode(), expected)


@given(logs())
def test_sending_a_log_again_folds_nothing(log: list[Sent]) -> None:
    """Ingestion that crashed and sends everything a second time changes no state; each usable record is counted as sent again."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, EntityState]()
    fold.advance(entries_of(log), states)
    before, resent = stored(states), fold.fence.resent
    progress = fold.advance(entries_of(log, len(log)), states)
    assert (progress.touched, progress.folded, progress.oldest_known_ms) == (set(), 0, None)
    assert stored(states) == before
    assert fold.fence.resent == resent + sum(record.happening is not None for record in log)


def test_advancing_by_nothing_changes_nothing() -> None:
    """An empty batch leaves the fence as it is."""
    fold = PartitionFold.start(KERNEL)
    assert fold.advance([], {}).touched == set()
    assert fold.fence == empty_fence(KERNEL)
    fence = fold.fence
    assert (fence.next, fence.until, fence.definition, fence.partitions) == (0, 0, KERNEL.definition, KERNEL.view.partitions)


def test_a_fence_is_a_picture_not_a_view() -> None:
    """A fence taken before a batch does not change with the batch."""
    fold = PartitionFold.start(KERNEL)
    before = fold.fence
    fold.advance([DECODE(0, b"a", encode(GOOD))], {})
    assert before.sources == {}
    assert fold.fence.sources == {0: 0}


@pytest.mark.parametrize("value", NOISE)
def test_noise_is_poison_not_an_error(value: bytes | None) -> None:
    """Whatever bytes lie on the topic, decoding gives an entry without a record, and its proof."""
    assert DECODE(7, b"a", value) == LogEntry(7, b"a", proof_of(b"a", value), None)


@pytest.mark.parametrize(
    "change",
    [
        {"time": 2**53 + 1},
        {"time": 1.5},
        {"time": None},
        {"known": -(2**60)},
        {"source": (0, 2**63)},
        {"source": (-1, 0)},
        {"values": {"x": "1", "y": 2, "flag": True}},
        {"values": {"x": 1.0, "y": 2**63, "flag": True}},
        {"values": {"x": 1.0, "y": None, "flag": True}},
        {"id": 5},
    ],
)
def test_a_record_that_would_break_a_fold_is_poison(change: dict[str, Any]) -> None:
    """Numbers out of range, wrong types, and null where the event allows none cannot reach the kernel."""
    raw = msgspec.json.encode({**msgspec.to_builtins(GOOD), **change})
    assert DECODE(0, b"a", raw).record is None


def test_a_record_needs_a_key_that_is_text() -> None:
    """Without a key, or with one that is not UTF-8, there is no entity."""
    value = encode(GOOD)
    assert DECODE(0, None, value).record is None
    assert DECODE(0, b"\xff", value).record is None
    assert DECODE(0, b"", value).record is not None


def test_what_a_view_does_not_fold_may_be_missing_or_more() -> None:
    """Null for a field that may be null can be left out, and fields the view does not know are passed over."""
    record = DECODE(0, b"a", encode(replace_values(GOOD, {"y": 2, "flag": True, "colour": "red"}))).record
    assert record is not None
    assert (getattr(record.values, "x"), getattr(record.values, "y"), record.id) == (None, 2, "a")  # noqa: B009 - a fold knows fields by name only


def replace_values(record: ViewRecord, values: dict[str, Any]) -> ViewRecord:
    """A record with other values."""
    return msgspec.structs.replace(record, values=values)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_decoding_never_raises(key: bytes, value: bytes) -> None:
    """No bytes make the decoder raise."""
    assert DECODE(0, key, value).offset == 0


@given(streams(max_size=8))
def test_order_between_entities_does_not_matter(events: list[Happening]) -> None:
    """Two entities on one partition are folded as if each were alone."""
    log = [
        sent(key, replace(event, id=None), (partition, i)) for i, event in enumerate(events) for partition, key in enumerate((b"a", b"b"))
    ]
    states: dict[bytes, EntityState] = {}
    PartitionFold.start(KERNEL).advance(entries_of(log), states)
    assert KERNEL.encode(states[b"a"]) == KERNEL.encode(states[b"b"])
