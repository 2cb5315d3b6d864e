"""A newest commit that a power cut left half written is taken out by the table's writer, and by nobody else."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.offline.lake import SCHEMA, content, opened, rows

from tidemill.errors import OfflineUnavailable, TornTable
from tidemill.offline.delta import CountedTable
from tidemill.offline.torn import flaw_of, torn_commit


def torn_table(path: Path) -> tuple[Path, bytes]:
    """A table of two commits of three rows; returns the file and content of the second."""
    log = opened(path)
    for i in range(2):
        log.append(rows(0, i * 3, i * 3 + 3), {"a": (i * 3, i * 3 + 3), "b": (i, i + 1)})
    commit = max((path / "_delta_log").glob("*.json"))
    return commit, commit.read_bytes()


@pytest.mark.slow
@given(st.floats(0, 1, exclude_max=True), st.booleans())  # a share, since a commit that took longer has more bytes to tell it
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_cut_of_the_newest_commit_heals(tmp_path_factory: pytest.TempPathFactory, share: float, zeros: bool) -> None:
    """Cut anywhere, or with its end zeroed, the newest commit is taken out whole and written again by its writer."""
    path = tmp_path_factory.mktemp("torn") / "t"
    commit, whole = torn_table(path)
    cut = int(share * len(whole))
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


def test_cut_claim_heals(tmp_path: Path) -> None:
    """The commit that claims the next merge is taken out when it was cut, so that the table's metadata stays as it was."""
    torn_table(tmp_path / "t")
    opened(tmp_path / "t")._claim(DeltaTable(tmp_path / "t"))
    commit = max((tmp_path / "t" / "_delta_log").glob("*.json"))
    whole = commit.read_bytes()
    assert flaw_of(whole) is None
    commit.write_bytes(whole.split(b"\n")[0])
    opened(tmp_path / "t").compact()
    assert content(tmp_path / "t") == {0: list(range(6))}
    assert len(list((tmp_path / "t" / "_torn").iterdir())) == 1


def test_cut_creation_is_done_again(tmp_path: Path) -> None:
    """A table whose very first commit was cut is created anew; so is one that was about to gain a column."""
    opened(tmp_path / "t")
    commit = tmp_path / "t" / "_delta_log" / f"{0:020}.json"
    commit.write_bytes(b"\n".join(commit.read_bytes().split(b"\n")[:2]))
    opened(tmp_path / "t").append(rows(0, 0, 1), {"a": (0, 1)})
    wider = CountedTable(str(tmp_path / "t"), pa.schema([("v", pa.float64()), *SCHEMA]), description="")
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


def test_commit_torn_behind_an_open_writer_heals_at_the_next_append(tmp_path: Path) -> None:
    """A writer that had opened the table is told of the commit that was torn since, then takes it out and writes from where the table is now."""
    commit, whole = torn_table(tmp_path / "t")
    log = opened(tmp_path / "t")
    commit.write_bytes(whole[:50])
    with pytest.raises(TornTable, match=re.escape(commit.name)):
        log.append(rows(0, 6, 9), {"a": (6, 9)})
    assert log.counter("a") == 3
    log.append(rows(0, 3, 9), {"a": (3, 9)})
    assert content(tmp_path / "t") == {0: list(range(9))}
