"""Reading what some questions need gives the answers of the whole partition, and reads no more than they need."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.demo_state import HOUR_MS, NOW_MS, demo
from tests.offline.lake import numbered
from tests.offline.test_history import KERNEL, VIEW, Sent, bits, log_of, logs

from tidemill.offline.asked import asked_log, partition_end
from tidemill.offline.history import Question, answer
from tidemill.offline.store import Among, OfflineStore, Snapshot
from tidemill.offline.tables import view_table
from tidemill.records import ViewRecord, encode, since_record

KEYS = [b"north", "süd".encode(), b"", b"nobody"]
TABLE = view_table(demo(), VIEW)


class Counting(Snapshot):
    """A snapshot that notes how many rows it gave, and of which columns."""

    given: list[tuple[int, Sequence[str] | None]]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Counting:
        """The same version of the same table."""
        made = cls(snapshot.name, snapshot._table)
        made.given = []
        return made

    def scan(
        self,
        columns: Sequence[str] | None = None,
        filters: pc.Expression | None = None,
        *,
        among: Among | None = None,
        order: Sequence[str] | None = None,
    ) -> pa.Table:
        """As ever."""
        table = super().scan(columns, filters, among=among, order=order)
        self.given.append((len(table), columns))
        return table


def stored(root: Path, sent: Sequence[Sent], pieces: int = 1) -> Snapshot:
    """The records as partition 0 of the view's table, in several commits; partition 1 holds the same, which nobody asks for."""
    log = OfflineStore(root).topic_table(TABLE)
    log.open()
    pairs: list[Any] = [(item.key, item.value) for item in sent]
    size = max(1, -(-len(pairs) // pieces))
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        rows = TABLE.rows_of({p: numbered(part, start) for p in (0, 1)})
        log.append(rows, {(TABLE.topic, p): (start, start + len(part)) for p in (0, 1)})
    return OfflineStore(root).snapshot(TABLE.name)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(sent=logs(), keys=st.sets(st.sampled_from(KEYS), min_size=1), pieces=st.integers(1, 3), data=st.data())
def test_the_answers_are_those_of_the_whole_partition(sent: list[Sent], keys: set[bytes], pieces: int, data: st.DataObject) -> None:
    """With late, doubled, resent and undecodable records, to the bit."""
    whole = log_of(sent)
    below = data.draw(st.integers(0, len(sent)))
    moments = [NOW_MS + 60_000 * data.draw(st.integers(-40, 60)) + data.draw(st.integers(0, 30)) * HOUR_MS for _ in keys]
    with tempfile.TemporaryDirectory() as folder:
        snapshot = stored(Path(folder), sent, pieces)
        cut, part = asked_log(snapshot, VIEW, 0, keys, below=below), asked_log(snapshot, VIEW, 0, keys)
        assert partition_end(snapshot, 0) == whole.end == len(sent)
    asked = list(zip(sorted(keys), moments, strict=True))
    expected = answer(KERNEL, whole, [Question(whole.rows_below(below), key, at) for key, at in asked])
    found = answer(KERNEL, cut, [Question(cut.rows_below(below), key, at) for key, at in asked])
    assert list(map(bits, found)) == list(map(bits, expected))
    every = answer(KERNEL, part, [Question(len(part), key, at) for key, at in asked])
    assert list(map(bits, every)) == list(map(bits, answer(KERNEL, whole, [Question(len(whole), key, at) for key, at in asked])))


def test_no_more_is_read_than_is_asked_for(tmp_path: Path) -> None:
    """Of the rows of other entities three numbers are read, of another partition and of later records nothing."""
    sent: list[Sent] = []
    for i in range(400):
        record = ViewRecord(NOW_MS + i, NOW_MS + i, (0, i), {"fare": 1.0, "tip": None}, None)
        sent.append(Sent(b"north" if i % 100 == 0 else b"%d" % i, encode(record), record))
    counting = Counting.of(stored(tmp_path, sent))
    log = asked_log(counting, VIEW, 0, [b"north"], below=250)
    assert len(log) == 3
    assert counting.given == [(250, ["offset", "source_partition", "source_offset"]), (3, None), (0, ["key", "time"])]


def test_a_partition_without_rows(tmp_path: Path) -> None:
    """Nothing was written: the log is empty, and so is every answer."""
    OfflineStore(tmp_path).topic_table(TABLE).open()
    snapshot = OfflineStore(tmp_path).snapshot(TABLE.name)
    log = asked_log(snapshot, VIEW, 2, [b"north"])
    assert (len(log), log.end, partition_end(snapshot, 2)) == (0, 0, 0)
    assert answer(KERNEL, log, [Question(0, b"north", NOW_MS)]) == [None]


def test_what_its_log_says_of_a_view_is_known_too(tmp_path: Path) -> None:
    """The record that says since when a view is fed belongs to no entity, and counts for each."""
    record = ViewRecord(NOW_MS, NOW_MS, (0, 1), {"fare": 1.0, "tip": None}, None)
    mark, value = since_record(NOW_MS - 1)
    snapshot = stored(tmp_path, [Sent(mark, value, None), Sent(b"north", encode(record), record)])
    assert asked_log(snapshot, VIEW, 0, [b"north"]).since_ms == NOW_MS - 1


def test_a_table_that_another_program_rewrote(tmp_path: Path) -> None:
    """delta-rs writes bounds of files in a text type that pyarrow cannot compare with text; rows are found all the same."""
    record = ViewRecord(NOW_MS, NOW_MS, (0, 0), {"fare": 1.0, "tip": None}, None)
    snapshot = stored(tmp_path, [Sent(b"north", encode(record), record)])
    DeltaTable(tmp_path / TABLE.name).update({"v_fare": "v_fare + 1.0"})
    again = OfflineStore(tmp_path).snapshot(TABLE.name)
    assert (len(asked_log(snapshot, VIEW, 0, [b"north"])), len(asked_log(again, VIEW, 0, [b"north"]))) == (1, 1)
