"""The table of results: numbers without gaps, positions and clock in the same commit, one joiner at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import TopicPartition
from deltalake import DeltaTable
from tests.demo_state import demo
from tests.offline.lake import numbered

from tidemill.declarations.models import Wait
from tidemill.errors import FenceConflict
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import RESULTS_SCHEMA, predictions_table, result_of_row, results_rows
from tidemill.proof.replay import logged
from tidemill.records import PredictionRecord, ResultRecord, encode
from tidemill_predlog import joiner
from tidemill_predlog import results as results_module
from tidemill_predlog.join import Join, KnownOutcome, LoggedPrediction
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


def test_a_table_from_before_results_had_classes(tmp_path: Path) -> None:
    """It gets the columns; its rows are results as they were, and texts and probabilities come back as they were written."""
    store = OfflineStore(tmp_path)
    columns = [field for field in RESULTS_SCHEMA if field.name not in ("label", "probabilities")]
    old = store.counted_table("results", pa.schema(columns))
    old.open()
    old.append(results_rows([result(0)]).select([field.name for field in columns]), {"seq": (0, 1)})
    assert [result_of_row(row) for row in store.scan("results").to_pylist()] == [result(0)]
    table = ResultsTable(store, INPUTS)
    start = table.open()
    assert start.seq == 1
    given = {"on time": 0.25, "late": float(np.float32(0.1)), "": 0.65}
    made = [
        ResultRecord(1, "q", "m", "1", "s", 5, 0.65, "joined", 9, "late", given),
        ResultRecord(2, "r", "m", "1", "s", 5, 0.65, "never", 9, None, given),
        ResultRecord(3, "t", "m", "1", "s", 5, 0.65, "joined", 9, 2.0, given),
    ]
    table.append(made, start, moved(start, 3, 0, 0))
    assert [*table.since(0, 4)] == [[result(0), *made]]


def test_predictions_from_before_they_had_classes(tmp_path: Path) -> None:
    """The join and a replay read a table without the column, and one with it."""
    store, table = OfflineStore(tmp_path), predictions_table(demo())
    record = PredictionRecord("p", "big_tip", "v", 5, 6, [1.0], 0.5, "s")
    classes = PredictionRecord("q", "big_tip", "v", 5, 6, [1.0], 0.75, "s", probabilities={"a": 0.25, "b": 0.75})
    columns = tuple(column for column in table.columns if column.name != "probabilities")
    for of_table, part, start in ((dataclasses.replace(table, columns=columns), [record], 0), (table, [classes], 1)):
        log = store.topic_table(of_table)
        log.open()
        rows = numbered([(one.id.encode(), encode(one)) for one in part], start)
        log.append(of_table.rows(0, rows), {(table.topic, 0): (start, start + 1)})
        known = [record, classes][: start + 1]
        assert logged(store) == known
        snapshot = store.snapshot("predictions")
        read = snapshot.scan([name for name in joiner._PREDICTION_COLUMNS if name in snapshot.columns])
        join = Join({"big_tip": Wait(10)})
        joiner._feed_predictions(join, read)
        join.outcome(KnownOutcome("big_tip", "s", "b", 7))
        assert [(found.prediction, found.probabilities, found.outcome) for found in join.take()] == [
            (one.id, one.probabilities, "b") for one in known
        ]


def test_the_answer_of_absence_may_be_a_text() -> None:
    """A prediction that is given up gets it, and the row of the result has it as its label."""
    join = Join({"m": Wait(10, "no show")})
    join.predict(LoggedPrediction("p", "m", "1", "s", 5, 0.75, {"shown": 0.25, "no show": 0.75}))
    join.advance(100)
    (found,) = join.take()
    assert (found.status, found.outcome, found.known) == ("joined", "no show", 15)
    (row,) = results_rows([found]).to_pylist()
    assert (row["outcome"], row["label"], row["probabilities"]) == (None, "no show", '{"shown":0.25,"no show":0.75}')
