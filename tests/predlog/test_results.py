"""The table of results: numbers without gaps, positions and clock in the same commit, one joiner at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import TopicPartition
from deltalake import DeltaTable

from tidemill.errors import FenceConflict
from tidemill.offline.store import OfflineStore
from tidemill.records import ResultRecord
from tidemill_predlog import results as results_module
from tidemill_predlog.results import JoinProgress, ResultsTable

INPUTS = [TopicPartition("x.predictions", 0), TopicPartition("x.outcomes", 0)]


def result(seq: int, name: str = "p") -> ResultRecord:
    """A result."""
    return ResultRecord(seq, name, "m", "1", "s", 5, 0.25, "joined", 9, 1.0)


def moved(before: JoinProgress, results: int, *positions: int, clock: int = 0) -> JoinProgress:
    """The progress after some results."""
    return JoinProgress(dict(zip(INPUTS, positions, strict=True)), clock, clock + 1, before.seq + results, before.commit + 1)


def test_progress_is_kept_with_the_results(tmp_path: Path) -> None:
    """What a commit covers is found again by the next process."""
    store = OfflineStore(tmp_path)
    table = ResultsTable(store, INPUTS)
    start = table.open()
    assert start == JoinProgress(dict.fromkeys(INPUTS, 0), 0, 0, 0, 0)
    after = moved(start, 2, 7, 3, clock=99)
    table.append([result(0), result(1, "q")], start, after)
    idle = moved(after, 0, 8, 3, clock=120)
    table.append([], after, idle)
    assert ResultsTable(store, INPUTS).open() == idle
    assert [row["prediction"] for row in store.scan("results").to_pylist()] == ["p", "q"]


def test_two_joiners_never_both_commit(tmp_path: Path) -> None:
    """Of two that start from the same progress one is refused, even when they moved different positions and found nothing."""
    store = OfflineStore(tmp_path)
    first, second = ResultsTable(store, INPUTS), ResultsTable(store, INPUTS)
    start = first.open()
    second.open()
    first.append([], start, moved(start, 0, 1, 0))
    with pytest.raises(FenceConflict):
        second.append([result(0)], start, moved(start, 1, 0, 1))
    assert second.open().positions == {INPUTS[0]: 1, INPUTS[1]: 0}


def test_since_gives_portions_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results from a number on, in portions, as records again."""
    monkeypatch.setattr(results_module, "_ROWS_AT_ONCE", 4)
    table = ResultsTable(OfflineStore(tmp_path), INPUTS)
    progress = table.open()
    for first in (0, 5):
        after = moved(progress, 5, first + 5, 0)
        table.append([result(seq) for seq in range(first, first + 5)], progress, after)
        progress = after
    assert [[found.seq for found in part] for part in table.since(3, 9)] == [[3, 4, 5, 6], [7, 8]]
    assert table.since(10, 10) == []
    assert DeltaTable(tmp_path / "results").to_pyarrow_dataset().count_rows() == 10
