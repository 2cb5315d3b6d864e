"""The copy of a log folds to what the log folds to, whatever the log holds: several writers, records sent twice, poison."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.offline.lake import numbered

from tidemill import Event, FeatureView, count, last, mean, rate
from tidemill.declarations.project import Project
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.keys import partition_of
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.tables import view_table
from tidemill.operations.repartition.old_log import OldLog, is_moved, moved_source
from tidemill.records import ViewRecord, encode, since_record

PAID = Event("paid", {"at": int, "card": str, "amount": float | None, "shop": str}, time="at")
VIEW = FeatureView(
    "cards", PAID, "card", [count(), mean("amount"), last("amount"), rate("shop == 'ä'", name="ae")], windows=["1h", "lifetime"], dedupe=2
)
Pair = tuple[bytes | None, bytes | None]
Logs = list[list[Pair]]


class Writers:
    """Processes of ingestion: each has source partitions of its own and writes waves, whose parts arrive in any order beside the others'."""

    def __init__(self, view: FeatureView, chance: random.Random) -> None:
        self.chance, self.logs, self._offsets = chance, [list[Pair]() for _ in range(view.partitions)], [0] * 3

    def wave(self, source: int) -> dict[int, list[Pair]]:
        """Some events of one source partition, by old partition."""
        wave: dict[int, list[Pair]] = defaultdict(list)
        for _ in range(self.chance.randrange(1, 6)):
            key = f"card-{self.chance.randrange(7)}".encode()
            values: dict[str, Any] = {"shop": self.chance.choice("äb"), "amount": self.chance.choice([None, self.chance.random(), 3])}
            values = {name: value for name, value in values.items() if value is not None}
            time_ms = 10_000_000 + 60_000 * self.chance.randrange(300)
            place = source, self._offsets[source]
            self._offsets[source] += self.chance.randrange(1, 3)
            record = ViewRecord(time_ms, time_ms + 5, place, values, self.chance.choice([None, f"e{self.chance.randrange(9)}"]))
            wave[partition_of(key, len(self.logs))].append((key, encode(record)))
        return wave

    def write(self, waves: int) -> Logs:
        """So many rounds of waves, now and then with poison, or a wave that is sent again."""
        for _ in range(waves):
            parts = [(p, part) for source in range(3) for p, part in self.wave(source).items()]
            self.chance.shuffle(parts)
            for partition, part in parts:
                self.logs[partition] += part * (2 if self.chance.random() < 0.1 else 1)
                if self.chance.random() < 0.1:
                    self.logs[partition].append((b"card-1", b'{"time":'))
        return self.logs


def read(view: FeatureView, logs: Logs) -> list[pa.Table]:
    """The rows of a log by partition."""
    table = view_table(Project("p", {"paid": PAID}, {"cards": view}), view)
    return [pa.Table.from_batches([table.rows(p, numbered(log))], table.schema) for p, log in enumerate(logs)]


def copied(old: OldLog, partitions: int) -> Logs:
    """The new log."""
    return [[(copy.key, copy.value) for copy in old.copies(partition)] for partition in range(partitions)]


def folded(view: FeatureView, logs: Logs) -> tuple[dict[bytes, bytes], list[PartitionFold]]:
    """The encoded value of every entity, and the folds."""
    kernel, decode, values, folds = ViewKernel(view), entry_decoder(view), dict[bytes, bytes](), []
    for log in logs:
        fold, states = PartitionFold.start(kernel), dict[bytes, EntityState]()
        fold.advance([decode(offset, key, value) for offset, (key, value) in enumerate(log)], states)
        values |= {key: kernel.encode(state) for key, state in states.items()}
        folds.append(fold)
    return values, folds


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_a_copy_knows_since_when_it_is_fed(seed: int, first: int, second: int) -> None:
    """Each new partition begins with the record that tells it, which is neither lost nor counted as undecodable; values are the same."""
    view, told = replace(VIEW, partitions=first), since_record(1_790_000_000_000)
    logs = [[told, *log] for log in Writers(view, random.Random(seed)).write(12)]
    expected, folds = folded(view, logs)
    old = OldLog(view, read(view, logs), second)
    new = copied(old, second)
    values, copies = folded(replace(view, partitions=second), new)
    assert values == expected
    assert {fold.fence.since_ms for fold in copies} == {1_790_000_000_000}
    assert [old.count(p) for p in range(second)] == [len(log) for log in new]
    assert old.count() == sum(map(len, new))
    assert old.undecodable == sum(fold.fence.poison for fold in folds)


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_a_copy_folds_to_the_same_values(seed: int, first: int, second: int, third: int) -> None:
    """Once and once more into another count: every entity's value is the same, nothing is sent twice or poison, and the counts add up."""
    view = replace(VIEW, partitions=first)
    logs = Writers(view, random.Random(seed)).write(12)
    expected, folds = folded(view, logs)
    for partitions in (second, third):
        old = OldLog(view, read(view, logs), partitions)
        assert (old.undecodable, old.sent_twice) == (sum(f.fence.poison for f in folds), sum(f.fence.resent for f in folds))
        assert old.count() + old.undecodable + old.sent_twice == sum(map(len, logs))
        view, logs = replace(view, partitions=partitions), copied(old, partitions)
        values, folds = folded(view, logs)
        assert values == expected
        assert {(f.fence.poison, f.fence.resent) for f in folds} == {(0, 0)}
        assert [old.count(p) for p in range(partitions)] == [len(log) for log in logs]
        assert all(partition_of(key or b"", partitions) == p for p, log in enumerate(logs) for key, _ in log)


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_nothing_of_a_record_changes_but_a_source_out_of_order(seed: int, first: int, second: int) -> None:
    """Time, knowledge, id and values are those of the old log; so is the source, or it is one of its own, which still names the place."""
    view = replace(VIEW, partitions=first)
    logs = Writers(view, random.Random(seed)).write(12)
    old = OldLog(view, read(view, logs), second)
    decoder = msgspec.json.Decoder(ViewRecord)
    where = {
        (p, offset): decoder.decode(value or b"")
        for p, log in enumerate(logs)
        for offset, (_, value) in enumerate(log)
        if len(value or b"") > 9
    }
    known = {record.source: record for record in where.values()}
    for partition in range(second):
        for copy in old.copies(partition):
            record = decoder.decode(copy.value)
            source = record.source
            assert copy.moved == is_moved(source[0])
            expected = where[source[0] - moved_source(first, 0), source[1]] if copy.moved else known[source]
            assert msgspec.structs.replace(record, source=expected.source, values={}) == msgspec.structs.replace(expected, values={})
            assert {k: float(v) if k == "amount" else v for k, v in record.values.items()} == expected.values  # type: ignore[arg-type]


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_what_ingestion_sends_again_is_still_known(seed: int, first: int, second: int) -> None:
    """The new log's folds have seen the last offset of every source in each of their partitions, so none of the old records counts again."""
    view = replace(VIEW, partitions=first)
    logs = Writers(view, random.Random(seed)).write(8)
    old = OldLog(view, read(view, logs), second)
    new = replace(view, partitions=second)
    expected, _ = folded(new, copied(old, second))
    again = copied(old, second)
    for log in logs:
        for key, value in log:
            again[partition_of(key or b"", second)].append((key, value))
    assert folded(new, again)[0] == expected


def test_one_writer_needs_no_source_of_its_own() -> None:
    """As long as one process wrote wave after wave, every record keeps its source."""
    view, chance = replace(VIEW, partitions=4), random.Random(5)
    writers = Writers(view, chance)
    for _ in range(200):
        for partition, part in writers.wave(chance.randrange(3)).items():
            writers.logs[partition] += part
    old = OldLog(view, read(view, writers.logs), 3)
    assert not any(copy.moved for partition in range(3) for copy in old.copies(partition))
    assert old.sources() == {source: offset for source, offset in old.sources().items() if offset > 100}


@pytest.mark.parametrize(("partitions", "partition"), [(1, 0), (4, 3), (10_000, 9_999)])
def test_a_moved_source_is_no_partition_of_a_topic(partitions: int, partition: int) -> None:
    """It says from which partition of which log the record came, and cannot be mistaken for another."""
    assert is_moved(moved_source(partitions, partition))
    assert not is_moved(partition)
    assert divmod(moved_source(partitions, partition), 2**32) == (partitions, partition)


def test_an_empty_log() -> None:
    """A log without records gives none."""
    old = OldLog(VIEW, read(VIEW, [[], [], [], []]), 2)
    assert (old.count(), old.sources(), copied(old, 2)) == (0, {}, [[], []])
