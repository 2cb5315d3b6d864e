"""Appending to a Delta table is a compare-and-swap on its counters, whoever else writes, and a half-written commit is taken out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.errors import FenceConflict, OfflineUnavailable, TornTable
from tidemill.offline import delta
from tidemill.offline.delta import DeltaLog
from tidemill.offline.torn import flaw_of, torn_commit

SCHEMA = pa.schema([("source", pa.int32()), ("offset", pa.int64())])


def rows(source: int, start: int, end: int) -> pa.RecordBatch:
    """Rows that say what they are: the offsets from start up to and without end."""
    count = end - start
    return pa.record_batch([pa.array([source] * count, pa.int32()), pa.array(range(start, end), pa.int64())], SCHEMA)


def opened(path: Path) -> DeltaLog:
    """A handle on the table at a path."""
    log = DeltaLog(str(path), SCHEMA, description="offsets by source")
    log.open()
    return log


def content(path: Path) -> dict[int, list[int]]:
    """Offsets by source, in the order of a scan that sorts."""
    table = DeltaTable(path).to_pyarrow_dataset().to_table().sort_by([("source", "ascending"), ("offset", "ascending")])
    found: dict[int, list[int]] = {}
    for source, offset in zip(table["source"].to_pylist(), table["offset"].to_pylist(), strict=True):
        found.setdefault(source, []).append(offset)
    return found


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


_steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["append", "reopen", "compact"]), st.integers(0, 2), st.integers(0, 6), st.integers(0, 4)),
    max_size=14,
)


@given(_steps)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_two_writers_agree_with_a_plain_counter(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int, int, int]]
) -> None:
    """Whatever two handles try, exactly the batches that start at the counter are accepted, and their rows are there once."""
    path = tmp_path_factory.mktemp("t") / "t"
    handles = [opened(path), opened(path)]
    counters = [0, 0, 0]
    for who, what, source, start, count in steps:
        if what == "append":
            move: dict[str, Any] = {str(source): (start, start + count)}
            if start == counters[source]:
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


def test_many_writers_at_once_lose_and_double_nothing(tmp_path: Path) -> None:
    """Four threads with handles of their own push the same counter; every row is there once."""
    path, target = tmp_path / "t", 60
    opened(path)

    def write() -> None:
        log = opened(path)
        while (at := log.counter("a")) < target:
            try:
                log.append(rows(0, at, min(at + 5, target)), {"a": (at, min(at + 5, target))})
            except (FenceConflict, OfflineUnavailable):
                log.open()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(path) == {0: list(range(target))}


def test_compaction_keeps_rows_and_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging small files, again and again, and vacuuming change neither rows nor counters; few files are left."""
    monkeypatch.setattr(delta, "COMMITS_PER_COMPACTION", 5)
    monkeypatch.setattr(delta, "COMPACTIONS_PER_VACUUM", 2)
    log = opened(tmp_path / "t")
    for i in range(23):
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
    grown = DeltaLog(str(tmp_path / "t"), pa.schema([("v", pa.float64()), *SCHEMA]), description="")
    grown.open()
    more = pa.record_batch([pa.array([1.5]), pa.array([0], pa.int32()), pa.array([1], pa.int64())], grown.schema)
    grown.append(more, {"a": (1, 2)})
    assert DeltaTable(tmp_path / "t").to_pyarrow_dataset().to_table().sort_by("offset")["v"].to_pylist() == [None, 1.5]


def test_dropped_columns_stay_and_are_null(tmp_path: Path) -> None:
    """A schema that has shrunk still writes: the table's other columns are null in new rows."""
    opened(tmp_path / "t").append(rows(7, 0, 1), {"a": (0, 1)})
    small = DeltaLog(str(tmp_path / "t"), pa.schema([("offset", pa.int64())]), description="")
    small.open()
    small.append(pa.record_batch([pa.array([1], pa.int64())], small.schema), {"a": (1, 2)})
    assert DeltaTable(tmp_path / "t").to_pyarrow_dataset().to_table().sort_by("offset")["source"].to_pylist() == [7, None]


def test_changed_type_is_refused(tmp_path: Path) -> None:
    """A column of another type is an error that names it."""
    opened(tmp_path / "t")
    with pytest.raises(TornTable, match=r"offset \(int64 there, string now\)"):
        DeltaLog(str(tmp_path / "t"), pa.schema([("offset", pa.string())]), description="").open()


def test_store_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """A file where the folder should be: the error says so, and the same handle works once it is gone."""
    (tmp_path / "t").write_text("in the way")
    log = DeltaLog(str(tmp_path / "t" / "table"), SCHEMA, description="")
    with pytest.raises(OfflineUnavailable, match="cannot open"):
        log.open()
    (tmp_path / "t").unlink()
    log.append(rows(0, 0, 1), {"a": (0, 1)})
    assert log.counter("a") == 1


# A half-written newest commit


def torn_table(path: Path) -> tuple[Path, bytes]:
    """A table of two commits of three rows; returns the file and content of the second."""
    log = opened(path)
    for i in range(2):
        log.append(rows(0, i * 3, i * 3 + 3), {"a": (i * 3, i * 3 + 3), "b": (i, i + 1)})
    commit = max((path / "_delta_log").glob("*.json"))
    return commit, commit.read_bytes()


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_cut_of_the_newest_commit_heals(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut anywhere, or with its end zeroed, the newest commit is taken out whole and written again by its writer."""
    path = tmp_path_factory.mktemp("torn") / "t"
    commit, whole = torn_table(path)
    cut = data.draw(st.integers(0, len(whole) - 1))
    zeros = data.draw(st.booleans())
    commit.write_bytes(whole[:cut] + (b"\0" * (len(whole) - cut) if zeros else b""))
    log = opened(path)
    assert (log.counter("a"), log.counter("b")) == (3, 1)
    log.append(rows(0, 3, 6), {"a": (3, 6), "b": (1, 2)})
    assert content(path) == {0: [0, 1, 2, 3, 4, 5]}
    assert len(list((path / "_torn").iterdir())) == 1


def test_cut_between_lines_is_noticed(tmp_path: Path) -> None:
    """A commit cut at a line's end is valid JSON, with rows but without their position: its first line gives it away."""
    _, whole = torn_table(tmp_path / "t")
    lines = whole.split(b"\n")
    assert len(lines) == 4
    for count in range(1, 4):
        assert flaw_of(b"\n".join(lines[:count])) is not None
    assert flaw_of(whole) is None


def test_any_cut_of_a_compaction_heals(tmp_path: Path) -> None:
    """A compaction removes files before it adds the merged one: cut between them it would lose rows, so it is taken out."""
    torn_table(tmp_path / "t")
    opened(tmp_path / "t").compact()
    commit = max((tmp_path / "t" / "_delta_log").glob("*.json"))
    whole = commit.read_bytes()
    lines = whole.split(b"\n")
    for count in range(1, len(lines)):
        commit.write_bytes(b"\n".join(lines[:count]))
        opened(tmp_path / "t")
        assert content(tmp_path / "t") == {0: list(range(6))}
    assert len(lines) == 4


def test_cut_creation_is_done_again(tmp_path: Path) -> None:
    """A table whose very first commit was cut is created anew; so is one that was about to gain a column."""
    opened(tmp_path / "t")
    commit = tmp_path / "t" / "_delta_log" / f"{0:020}.json"
    commit.write_bytes(b"\n".join(commit.read_bytes().split(b"\n")[:2]))
    opened(tmp_path / "t").append(rows(0, 0, 1), {"a": (0, 1)})
    wider = DeltaLog(str(tmp_path / "t"), pa.schema([("v", pa.float64()), *SCHEMA]), description="")
    wider.open()
    commit = tmp_path / "t" / "_delta_log" / f"{2:020}.json"
    commit.write_bytes(commit.read_bytes().split(b"\n")[0])
    wider.open()
    assert DeltaTable(tmp_path / "t").schema().to_arrow().names == ["source", "offset", "v"]


def test_whole_commits_are_left_alone(tmp_path: Path) -> None:
    """Opening a table in order, or one whose newest commit merely compacts, takes nothing out."""
    torn_table(tmp_path / "t")
    log = opened(tmp_path / "t")
    log.compact()
    assert opened(tmp_path / "t").counter("a") == 6
    assert torn_commit(str(tmp_path / "t")) is None
    assert not (tmp_path / "t" / "_torn").exists()


def test_torn_commit_under_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    """What a checkpoint covers is complete, whatever the commit's file looks like."""
    commit, whole = torn_table(tmp_path / "t")
    DeltaTable(tmp_path / "t").create_checkpoint()
    commit.write_bytes(whole[:40])
    assert torn_commit(str(tmp_path / "t")) is None


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    """An older commit that is damaged is not ours to drop: the table is refused, and nothing is moved."""
    commit, whole = torn_table(tmp_path / "t")
    older = commit.with_name(f"{int(commit.stem) - 1:020}.json")
    older.write_bytes(whole[:40])
    with pytest.raises(OfflineUnavailable, match="cannot open"):
        opened(tmp_path / "t")
    assert older.exists()
    assert commit.read_bytes() == whole
