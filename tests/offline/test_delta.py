"""Appending to a Delta table is a compare-and-swap on its counters, whoever else writes, and a half-written commit is taken out."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.offline.lake import SCHEMA, content, opened, rows

from tidemill.errors import FenceConflict, OfflineUnavailable, TornTable
from tidemill.offline import delta
from tidemill.offline.delta import CountedTable


def test_append_moves_counters_and_adds_rows(tmp_path: Path) -> None:
    """One commit moves several counters; a handle opened later finds them."""
    log = opened(tmp_path / "t")
    assert log.counter("a-0") == 0
    log.append(rows(0, 0, 3), {"a-0": (0, 3), "a-1": (0, 5), "same": (0, 0)})
    assert [opened(tmp_path / "t").counter(name) for name in ("a-0", "a-1", "same", "other")] == [3, 5, 0, 0]
    assert content(tmp_path / "t") == {0: [0, 1, 2]}


@pytest.mark.parametrize("start", [0, 2, 4])
def test_append_refuses_another_start(tmp_path: Path, start: int) -> None:
    """A batch that starts below or above the counter writes nothing; the error says where the table is."""
    log = opened(tmp_path / "t")
    log.append(rows(0, 0, 3), {"a": (0, 3)})
    with pytest.raises(FenceConflict) as caught:
        log.append(rows(0, start, 6), {"a": (start, 6)})
    assert (caught.value.expected, caught.value.found) == (start, 3)
    assert content(tmp_path / "t") == {0: [0, 1, 2]}


def test_append_refuses_to_move_back(tmp_path: Path) -> None:
    """A counter never falls."""
    log = opened(tmp_path / "t")
    log.append(rows(0, 0, 3), {"a": (0, 3)})
    with pytest.raises(ValueError, match="back"):
        log.append(rows(0, 0, 0), {"a": (3, 2)})


def test_rows_may_be_none(tmp_path: Path) -> None:
    """A commit without rows moves counters too."""
    log = opened(tmp_path / "t")
    log.append(rows(0, 0, 0), {"clock": (0, 99)})
    assert opened(tmp_path / "t").counter("clock") == 99


def test_stale_handle_is_refused(tmp_path: Path) -> None:
    """A handle that has not seen the other's commit finds out when it writes, and does not write twice."""
    first, second = opened(tmp_path / "t"), opened(tmp_path / "t")
    first.append(rows(0, 0, 3), {"a": (0, 3)})
    with pytest.raises(FenceConflict):
        second.append(rows(0, 0, 5), {"a": (0, 5)})
    assert content(tmp_path / "t") == {0: [0, 1, 2]}


def test_handle_refreshed_by_another_counter_is_refused(tmp_path: Path) -> None:
    """Writing for one counter brings the handle past the other's commit; the check before the next write still sees it."""
    first, second = opened(tmp_path / "t"), opened(tmp_path / "t")
    first.append(rows(0, 0, 3), {"a": (0, 3)})
    second.append(rows(1, 0, 2), {"b": (0, 2)})
    with pytest.raises(FenceConflict):
        second.append(rows(0, 0, 3), {"a": (0, 3)})
    assert content(tmp_path / "t") == {0: [0, 1, 2], 1: [0, 1]}


def test_only_what_the_last_commit_moved_is_known(tmp_path: Path) -> None:
    """A counter that this handle moved once is looked up again after a commit that left it alone: another writer may have moved it."""
    first = opened(tmp_path / "t")
    first.append(rows(0, 0, 3), {"a": (0, 3)})
    opened(tmp_path / "t").append(rows(0, 3, 5), {"a": (3, 5)})
    first.append(rows(1, 0, 2), {"b": (0, 2)})
    with pytest.raises(FenceConflict):
        first.append(rows(0, 3, 5), {"a": (3, 5)})
    assert first.counter("a") == 5
    assert content(tmp_path / "t") == {0: [0, 1, 2, 3, 4], 1: [0, 1]}


_steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["append", "reopen", "compact"]), st.integers(0, 2), st.integers(0, 6), st.integers(0, 4)),
    max_size=14,
)


@pytest.mark.slow
@given(_steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_two_writers_agree_with_a_plain_counter(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int, int, int]]
) -> None:
    """Whatever two handles try, exactly the batches that start at the counter are accepted, and their rows are there once.

    A handle that has not heard of the other's commits may refuse a good one, but not after it was opened anew.
    """
    path = tmp_path_factory.mktemp("t") / "t"
    handles = [opened(path), opened(path)]
    counters = [0, 0, 0]
    for who, what, source, start, count in steps:
        if what == "append":
            move: dict[str, Any] = {str(source): (start, start + count)}
            if start == counters[source]:
                try:
                    handles[who].append(rows(source, start, start + count), move)
                except FenceConflict:
                    handles[who].open()
                    handles[who].append(rows(source, start, start + count), move)
                counters[source] += count
            elif count:
                with pytest.raises(FenceConflict):
                    handles[who].append(rows(source, start, start + count), move)
        elif what == "reopen":
            handles[who].open()
        else:
            handles[who].compact()
    fresh = opened(path)
    assert [fresh.counter(str(source)) for source in range(3)] == counters
    assert content(path) == {source: list(range(end)) for source, end in enumerate(counters) if end}


def two_files(path: Path) -> CountedTable:
    """A table of two files of three rows; returns a handle that has seen both."""
    log = opened(path)
    for i in range(2):
        log.append(rows(0, i * 3, i * 3 + 3), {"a": (i * 3, i * 3 + 3)})
    return log


def test_the_library_doubles_rows_when_two_merge_the_same_files(tmp_path: Path) -> None:
    """Why merges are claimed: delta-rs accepts a second merge of files that the first has removed. When this fails, claims may go."""
    two_files(tmp_path / "t")
    for stranger in [DeltaTable(tmp_path / "t") for _ in range(2)]:
        stranger.optimize.compact()
    assert content(tmp_path / "t") == {0: [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]}


def test_merge_from_an_older_state_is_refused(tmp_path: Path) -> None:
    """A handle that has not heard of the other's merge does not merge the same files again, nor does a stranger; both can go on."""
    first, second = two_files(tmp_path / "t"), opened(tmp_path / "t")
    stranger = DeltaTable(tmp_path / "t")
    first.compact()
    second.compact()
    with pytest.raises(CommitFailedError, match="Metadata changed"):
        stranger.optimize.compact()
    second.append(rows(0, 6, 9), {"a": (6, 9)})
    second.compact()
    assert content(tmp_path / "t") == {0: list(range(9))}
    assert len(DeltaTable(tmp_path / "t").file_uris()) == 1


@pytest.mark.parametrize("behind", [False, True])
def test_merge_that_another_claimed_after_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    """Between a claim and its merge another writer claims and merges, or appends too: the first merge is refused, every row is there once."""
    first, second = two_files(tmp_path / "t"), opened(tmp_path / "t")
    claim = CountedTable._claim

    def slow(log: CountedTable, table: DeltaTable) -> None:
        claim(log, table)
        if log is first:
            second.open()
            if behind:
                second.append(rows(0, 6, 8), {"a": (6, 8)})
            second.compact()

    monkeypatch.setattr(CountedTable, "_claim", slow)
    first.compact()
    first.append(rows(1, 0, 1), {"b": (0, 1)})
    assert content(tmp_path / "t") == {0: list(range(8 if behind else 6)), 1: [0]}


def test_claim_knows_what_came_before_it(tmp_path: Path) -> None:
    """A handle that another's commits have passed merges their files too: its claim brings it up to date."""
    first, second = two_files(tmp_path / "t"), opened(tmp_path / "t")
    second.append(rows(0, 6, 9), {"a": (6, 9)})
    first.compact()
    assert content(tmp_path / "t") == {0: list(range(9))}
    assert len(DeltaTable(tmp_path / "t").file_uris()) == 1


def test_many_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    """Four threads with handles of their own push the same counter and merge after each commit; every row is there once."""
    path, target = tmp_path / "t", 60
    opened(path)

    def write() -> None:
        log = opened(path)
        while (at := log.counter("a")) < target:
            try:
                log.append(rows(0, at, min(at + 5, target)), {"a": (at, min(at + 5, target))})
                log.compact()
            except (FenceConflict, OfflineUnavailable):
                log.open()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(path) == {0: list(range(target))}


def parquet(path: Path) -> set[Path]:
    """The Parquet files of a table's folder, also those that the table no longer has."""
    return set(path.glob("*.parquet"))


def aged(path: Path, seconds: float) -> None:
    """Make everything in a table look older: files by their date, deletions by the times in the commits."""
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (file.stat().st_atime - seconds, file.stat().st_mtime - seconds))
    for commit in (path / "_delta_log").glob("*.json"):
        text = commit.read_text()
        commit.write_text(
            re.sub(r'"deletionTimestamp":(\d+)', lambda found: f'"deletionTimestamp":{int(found[1]) - int(seconds * 1000)}', text)
        )


def test_files_are_merged_by_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer merges when there are so many small files, also those that others wrote before it; an empty commit makes none."""
    monkeypatch.setattr(delta, "FILES_PER_MERGE", 6)
    for i in range(4):
        opened(tmp_path / "t").append(rows(0, i, i + 1), {"a": (i, i + 1)})
    log = opened(tmp_path / "t")
    for i in range(4, 9):
        log.append(rows(0, 4, 4), {"a": (i, i + 1)})
    assert len(DeltaTable(tmp_path / "t").file_uris()) == 4
    log.append(rows(0, 4, 5), {"a": (9, 10)})
    assert len(DeltaTable(tmp_path / "t").file_uris()) == 5
    log.append(rows(0, 5, 6), {"a": (10, 11)})
    assert len(DeltaTable(tmp_path / "t").file_uris()) == 1
    assert content(tmp_path / "t") == {0: list(range(6))}


def test_replaced_files_go_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a merge replaced, and those of a writer that died before its commit, go an hour later, not before, also when nothing is
    written any more: then plain Parquet shows each row once."""
    log = two_files(tmp_path / "t")
    log.compact()
    (tmp_path / "t" / "part-uncommitted.parquet").write_bytes(next(iter(parquet(tmp_path / "t"))).read_bytes())
    log.tidy()
    assert len(parquet(tmp_path / "t")) == 4
    aged(tmp_path / "t", 3000)
    log.open()
    log.tidy()
    assert len(parquet(tmp_path / "t")) == 4
    aged(tmp_path / "t", 4300)
    log.open()
    log.tidy()
    assert [str(path) for path in parquet(tmp_path / "t")] == DeltaTable(tmp_path / "t").file_uris()
    assert content(tmp_path / "t") == {0: list(range(6))}
    assert not log.untidy
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + delta.KEPT_SECONDS + 60)
    assert log.untidy


def test_deleted_rows_do_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that began before a deletion is refused; appends and later merges go on, and the counters stay."""
    first, second = two_files(tmp_path / "t"), opened(tmp_path / "t")
    claim = CountedTable._claim

    def slow(log: CountedTable, table: DeltaTable) -> None:
        claim(log, table)
        if log is first:
            assert second.delete('"offset" IN (1, 4)') == 2

    monkeypatch.setattr(CountedTable, "_claim", slow)
    first.compact()
    monkeypatch.undo()
    first.append(rows(0, 6, 8), {"a": (6, 8)})
    first.compact()
    assert content(tmp_path / "t") == {0: [0, 2, 3, 5, 6, 7]}
    assert opened(tmp_path / "t").counter("a") == 8


def test_a_deletion_that_a_merge_overtakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a deletion's claim and its commit another writer merges: the deletion is done again on what the merge made."""
    first, second = two_files(tmp_path / "t"), opened(tmp_path / "t")
    claim, overtaken = CountedTable._claim, list[bool]()

    def slow(log: CountedTable, table: DeltaTable) -> None:
        claim(log, table)
        if log is first and not overtaken:
            overtaken.append(True)
            second.open()
            second.compact()

    monkeypatch.setattr(CountedTable, "_claim", slow)
    assert first.delete('"offset" = 3') == 1
    assert content(tmp_path / "t") == {0: [0, 1, 2, 4, 5]}


@pytest.mark.parametrize("short_lived", [False, True])
def test_compaction_keeps_rows_and_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_lived: bool) -> None:
    """Merging small files, again and again, and vacuuming change neither rows nor counters; few files are left, also by writers that die young."""
    monkeypatch.setattr(delta, "FILES_PER_MERGE", 5)
    monkeypatch.setattr(delta, "KEPT_SECONDS", 0)
    log = opened(tmp_path / "t")
    for i in range(23):
        if short_lived:
            log = opened(tmp_path / "t")
        log.append(rows(0, i * 2, i * 2 + 2), {"a": (i * 2, i * 2 + 2)})
    assert opened(tmp_path / "t").counter("a") == 46
    assert content(tmp_path / "t") == {0: list(range(46))}
    assert len(DeltaTable(tmp_path / "t").file_uris()) < 6


def test_counters_survive_checkpoint_and_log_cleanup(tmp_path: Path) -> None:
    """Counters are found when only a checkpoint holds them."""
    log = opened(tmp_path / "t")
    log.append(rows(0, 0, 3), {"a": (0, 3)})
    table = DeltaTable(tmp_path / "t")
    table.create_checkpoint()
    for commit in (tmp_path / "t" / "_delta_log").glob("*.json"):
        commit.unlink()
    assert opened(tmp_path / "t").counter("a") == 3


def test_new_columns_are_added(tmp_path: Path) -> None:
    """A table gains the columns of a schema that has grown; older rows are null there."""
    opened(tmp_path / "t").append(rows(0, 0, 1), {"a": (0, 1)})
    grown = CountedTable(str(tmp_path / "t"), pa.schema([("v", pa.float64()), *SCHEMA]), description="")
    grown.open()
    more = pa.record_batch([pa.array([1.5]), pa.array([0], pa.int32()), pa.array([1], pa.int64())], grown.schema)
    grown.append(more, {"a": (1, 2)})
    assert DeltaTable(tmp_path / "t").to_pyarrow_dataset().to_table().sort_by("offset")["v"].to_pylist() == [None, 1.5]


def test_dropped_columns_stay_and_are_null(tmp_path: Path) -> None:
    """A schema that has shrunk still writes: the table's other columns are null in new rows."""
    opened(tmp_path / "t").append(rows(7, 0, 1), {"a": (0, 1)})
    small = CountedTable(str(tmp_path / "t"), pa.schema([("offset", pa.int64())]), description="")
    small.open()
    small.append(pa.record_batch([pa.array([1], pa.int64())], small.schema), {"a": (1, 2)})
    assert DeltaTable(tmp_path / "t").to_pyarrow_dataset().to_table().sort_by("offset")["source"].to_pylist() == [7, None]


def test_changed_type_is_refused(tmp_path: Path) -> None:
    """A column of another type is an error that names it."""
    opened(tmp_path / "t")
    with pytest.raises(TornTable, match=r"offset \(int64 there, string now\)"):
        CountedTable(str(tmp_path / "t"), pa.schema([("offset", pa.string())]), description="").open()


def test_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """A file where the folder should be: the error says so, and the same handle works once it is gone."""
    (tmp_path / "t").write_text("in the way")
    log = CountedTable(str(tmp_path / "t" / "table"), SCHEMA, description="")
    with pytest.raises(OfflineUnavailable, match="cannot open"):
        log.open()
    (tmp_path / "t").unlink()
    log.append(rows(0, 0, 1), {"a": (0, 1)})
    assert log.counter("a") == 1
