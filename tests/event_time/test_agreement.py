"""Online, offline and training set agree on every event, however late, early, repeated or broken, and so does a reference that keeps all events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.event_time.oracle import Naive, Told
from tests.event_time.world import HOUR_MS, MINUTE_MS, PROJECT, VIEWS, Cut, Logs, Sent, Shelf, cuttings, fold, routed, streams
from tests.offline.lake import numbered

from tidemill.archive.columns import ID, KNOWN, TIME
from tidemill.archive.view_rows import KEY
from tidemill.declarations import FeatureView
from tidemill.declarations.aggregations import Value
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.offline.history import PartitionLog, resent
from tidemill.offline.tables import view_table
from tidemill.records import DeadLetterRecord, Position
from tidemill.streams.topics import view_topic
from tidemill.training.asked import Questions, features_of

KERNELS = {view.name: ViewKernel(view) for view in VIEWS}
Identity = tuple[str, Position, str | None]


@dataclass
class Expected:
    """What must become of a stream in one view: entities, dead letters by reason, source and view, and counters."""

    view: FeatureView
    entities: dict[str, Naive] = field(default_factory=dict)
    letters: set[Identity] = field(default_factory=set)
    logs: dict[int, list[tuple[int, str, str | None]]] = field(default_factory=dict)
    resent: int = 0
    poison: int = 0

    def naive(self, entity: str) -> Naive:
        """The entity's events."""
        return self.entities.setdefault(entity, Naive(self.view))

    def repeats(self, partition: int, told: Told) -> bool:
        """Whether the log had the event's id for its entity lately: in the same third of the time for which ids are remembered, or in one of the
        three before. The log's time is the newest moment of knowing so far."""
        if self.view.dedupe_ms is None:
            return False
        log = self.logs.setdefault(partition, [])
        third = max([told.known_ms // -(-self.view.dedupe_ms // 3), *(other for other, _, _ in log)])
        found = any(third - other <= 3 and (entity, event) == (told.entity, told.id) for other, entity, event in log)
        log.append((third, told.entity, told.id))
        return found and told.id is not None

    def counters(self) -> tuple[int, int, int, int]:
        """Duplicates, resent, late, poison, as a fence counts them."""
        late = len([reason for reason, _, _ in self.letters if reason == "late"])
        return sum(naive.duplicates for naive in self.entities.values()), self.resent, late, self.poison


def expected_of(view: FeatureView, stream: Iterable[Sent]) -> Expected:
    """What the documentation says of a stream, event by event in the order of the log."""
    found, ends, seen = Expected(view), Counter[int](), set[tuple[int, int]]()
    for sent in stream:
        told, partition = sent.told, partition_of(sent.told.entity.encode(), view.partitions)
        here = (view_topic(PROJECT.name, view.log), partition, ends[partition])
        if sent.kind == "noise":
            found.letters.add(("poison", here, view.name))
            found.poison += 1
        elif told.time_ms - told.known_ms > 3 * HOUR_MS:
            found.letters.add(("future_time", ("happened", *sent.source), None))
            continue
        elif view.ahead_ms is not None and told.time_ms - told.known_ms > view.ahead_ms:
            found.letters.add(("future_time", ("happened", *sent.source), view.name))
            continue
        else:
            repeats, known = found.repeats(partition, told), sent.source in seen
            seen.add(sent.source)
            if known:
                found.resent += 1
            elif repeats:
                found.naive(told.entity).duplicates += 1
            elif not found.naive(told.entity).offer(told):
                found.letters.add(("late", here, view.name))
        ends[partition] += 1
    return found


def known_by(view: FeatureView, stream: Iterable[Sent], known_ms: int) -> dict[str, Naive]:
    """The entities as a training set sees them: what was known by a moment, in the order in which it became known."""
    fresh = [sent for sent in stream if sent.kind == "new" and sent.told.known_ms <= known_ms]
    return expected_of(view, sorted(fresh, key=lambda sent: sent.told.known_ms)).entities


def identities(letters: Iterable[DeadLetterRecord]) -> set[Identity]:
    """What letters are known by; one written twice counts once."""
    return {(letter.reason, letter.source, letter.view) for letter in letters}


def same(served: Served, expected: Sequence[tuple[str, Value]]) -> bool:
    """Whether statuses are equal and values equal up to rounding."""
    if served.statuses != [status for status, _ in expected]:
        return False
    pairs = [(served.value(i), value) for i, (_, value) in enumerate(expected)]
    return all(equal(one, other) for one, other in pairs)


def equal(one: Value, other: Value) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    wanted: Any = pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True) if isinstance(other, float) else other
    return bool(one == wanted)


def offline(view: FeatureView, logs: Logs) -> dict[int, PartitionLog]:
    """The rows that the offline writer makes of a view's topic, by partition."""
    table, topic = view_table(PROJECT, view), view_topic(PROJECT.name, view.log)
    read = {p: numbered([(row.key, row.value) for row in logs.rows[TP(topic, p)]]) for p in range(view.partitions)}
    return {p: PartitionLog(view, pa.Table.from_batches([table.rows(p, records)])) for p, records in read.items()}


def served_online(shelf: Shelf, view: FeatureView, entity: str, time_ms: int) -> Served:
    """What feature serving makes of the stored value."""
    value = shelf.values[view.log, partition_of(entity.encode(), view.partitions)].get(entity.encode())
    return serve(view, None if value is None else KERNELS[view.name].read(value, time_ms), time_ms)


def in_training(view: FeatureView, logs: Logs, known_ms: int, times_ms: Sequence[int]) -> dict[tuple[str, int], list[Value]]:
    """The features that a training set holds for requests, by entity and time: of what was known by `known_ms`, read at each of `times_ms`."""
    log, topic, parts = view_table(PROJECT, view), view_topic(PROJECT.name, view.log), list[pa.Table]()
    for p in range(view.partitions):
        part = pa.Table.from_batches([log.rows(p, numbered([(row.key, row.value) for row in logs.rows[TP(topic, p)]]))])
        part = part.filter(pc.field("time").is_valid())
        parts.append(part.filter(pa.array(~resent(part["source_partition"].to_numpy(), part["source_offset"].to_numpy()))))
    table = pa.concat_tables(parts).filter(pc.field("known") <= known_ms)
    table = table.sort_by([("known", "ascending"), ("source_partition", "ascending"), ("source_offset", "ascending")])
    names = {"key": KEY, "known": KNOWN, "time": TIME, "id": ID, **{f"v_{name}": name for name in view.value_fields}}
    rows = pa.table({name: table[column] for column, name in names.items()})
    asked = [(entity, time_ms) for time_ms in times_ms for entity in "ab"]
    keys, times = (list(column) for column in zip(*asked, strict=True))
    found = features_of(view, rows, Questions(pa.array(keys), np.array(times), np.full(len(asked), -1)))
    return dict(zip(asked, found.tolist(), strict=True))


def moments(data: st.DataObject, from_ms: int) -> list[int]:
    """Some moments from one on: at once, soon, at the edge of a tile, and when everything has gone by."""
    steps = data.draw(st.lists(st.integers(0, 200) | st.integers(0, 900), min_size=1, max_size=4))
    return [from_ms, *(from_ms // MINUTE_MS * MINUTE_MS + step * MINUTE_MS + edge for step in steps for edge in (0, MINUTE_MS - 1))]


def agree(stream: list[Sent], cuts: list[Cut], cache_bytes: int, data: st.DataObject) -> None:
    """Assert that bytes, fences, letters and readings are those of the log."""
    logs = routed(stream)
    shelf, letters = fold(logs, cuts, cache_bytes)
    for view in VIEWS:
        expected, kernel = expected_of(view, stream), KERNELS[view.name]
        for partition, log in offline(view, logs).items():
            audit, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
            audit.advance(list(log.entries()), states)
            assert Fence.decode(shelf.fence[view.log, partition]) == audit.fence
            assert shelf.values[view.log, partition] == {entity: kernel.encode(state) for entity, state in states.items()}
        assert shelf.counters(view) == expected.counters()
        ours = {letter for letter in identities([*logs.letters, *letters.kept]) if letter[2] in (None, view.name)}
        assert ours == expected.letters
        for time_ms in moments(data, max(sent.told.known_ms for sent in stream)):
            for entity in "ab":
                assert same(served_online(shelf, view, entity, time_ms), expected.naive(entity).serve(time_ms))


DIVISIONS = cuttings(), st.sampled_from([0, 2_500, 1 << 20])


@pytest.mark.slow
@given(streams(in_order=False), *DIVISIONS, st.data())
def test_the_store_the_offline_rows_and_the_reference_agree(
    stream: list[Sent], cuts: list[Cut], cache_bytes: int, data: st.DataObject
) -> None:
    """However a stream is cut, spilled, loaded and begun anew, everybody says the same of it."""
    agree(stream, cuts, cache_bytes, data)


@pytest.mark.slow
@given(streams(in_order=True), st.data())
def test_a_training_set_holds_what_was_answered(stream: list[Sent], data: st.DataObject) -> None:
    """Where events arrive in the order in which they became known, a row is what serving answered at that moment, to the bit."""
    known_ms = data.draw(st.sampled_from([sent.told.known_ms for sent in stream]))
    shelf, _ = fold(routed([sent for sent in stream if sent.told.known_ms <= known_ms]), [], 1 << 20)
    logs = routed(stream)
    for view in VIEWS:
        for (entity, time_ms), row in in_training(view, logs, known_ms, moments(data, known_ms)).items():
            online = served_online(shelf, view, entity, time_ms)
            told = [value if isinstance(value := online.value(i), str) else online.values[i] for i in range(len(row))]
            assert [repr(value) for value in row] == [repr(value) for value in told]


@pytest.mark.slow
@given(streams(in_order=False), st.data())
def test_a_training_set_agrees_with_the_reference(stream: list[Sent], data: st.DataObject) -> None:
    """For any moment of knowing and any later request: the features are those of the events known by then, in the order of knowing."""
    logs = routed(stream)
    known_ms = data.draw(st.sampled_from([sent.told.known_ms for sent in stream])) + data.draw(st.integers(-1, 1))
    for view in VIEWS:
        entities = known_by(view, stream, known_ms)
        for (entity, time_ms), row in in_training(view, logs, known_ms, moments(data, known_ms)).items():
            expected = entities.get(entity, Naive(view)).serve(time_ms)
            numbers = [value if status == "PRESENT" and not isinstance(value, list) else math.nan for status, value in expected]
            assert all(map(equal, row, numbers))


@pytest.mark.slow
def test_the_streams_hold_every_kind_of_trouble() -> None:
    """The generator is worth something: in a few hundred streams each fate happens often, in both views."""
    fates = Counter[str]()

    @settings(max_examples=100)
    @given(streams(in_order=False, min_size=10))
    def look(stream: list[Sent]) -> None:
        for view in VIEWS:
            expected = expected_of(view, stream)
            fates.update(f"{view.name} {reason} {'whole' if of is None else ''}".strip() for reason, _, of in expected.letters)
            duplicates, resent, _, _ = expected.counters()
            corrected = sum(len(naive.late_by_ms) for naive in expected.entities.values())
            waiting = sum(naive.ahead for naive in expected.entities.values())
            fates.update(
                {
                    f"{view.name} {name}": n
                    for name, n in zip(
                        ("duplicate", "resent", "late at all", "ahead"), (duplicates, resent, corrected, waiting), strict=True
                    )
                }
            )

    look()
    for view in VIEWS:
        for fate in ("late", "poison", "future_time whole", "duplicate", "resent", "late at all", "ahead"):
            assert fates[f"{view.name} {fate}"] > 2, fates
    assert fates["waiting future_time"] > 2
