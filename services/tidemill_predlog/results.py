"""The table of results: new results, and the positions of the records that they cover, in one commit.

Counters: the next offset of each partition read, `seq` (the next result's), `clock` and `now` of the join, and `commit`, which every commit
moves, so that of two joiners that work at the same time one is always refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow.compute as pc
from aiokafka import TopicPartition

from tidemill.offline.store import OfflineStore, counter_name
from tidemill.offline.tables import RESULTS_SCHEMA, result_of_row, results_rows
from tidemill.records import ResultRecord

NAME = "results"
_ROWS_AT_ONCE = 10_000


class JoinProgress(NamedTuple):
    """How far the results go: positions read, the join's clock, the latest time seen, the next result's number, the number of commits."""

    positions: dict[TopicPartition, int]
    clock: int
    now: int
    seq: int
    commit: int

    def counters(self) -> dict[str, int]:
        """The counters that are stored with a commit."""
        return {
            **{counter_name(target.topic, target.partition): position for target, position in self.positions.items()},
            "clock": self.clock,
            "now": self.now,
            "seq": self.seq,
            "commit": self.commit,
        }


class ResultsTable:
    """The table `results`, for its one writer."""

    def __init__(self, store: OfflineStore, inputs: Sequence[TopicPartition]) -> None:
        self._store = store
        self._inputs = inputs
        self._log = store.counted_table(NAME, RESULTS_SCHEMA)

    def open(self) -> JoinProgress:
        """Create or read the table. Raises OfflineUnavailable, TornTable."""
        self._log.open()
        counter = self._log.counter
        positions = {target: counter(counter_name(target.topic, target.partition)) for target in self._inputs}
        return JoinProgress(positions, counter("clock"), counter("now"), counter("seq"), counter("commit"))

    def append(self, results: Sequence[ResultRecord], before: JoinProgress, after: JoinProgress) -> None:
        """Add results, numbered from `before.seq`, and move on. Raises FenceConflict when the table is not at `before`, OfflineUnavailable."""
        end = after.counters()
        moves: Mapping[str, tuple[int, int]] = {name: (start, end[name]) for name, start in before.counters().items()}
        self._log.append(results_rows(results), moves)

    def since(self, seq: int, before: int) -> Sequence[Sequence[ResultRecord]]:
        """The results from `seq` up to and without `before`, in order, in portions."""
        table = self._store.scan(NAME, None, (pc.field("seq") >= seq) & (pc.field("seq") < before))
        return [
            [result_of_row(row) for row in table.slice(start, _ROWS_AT_ONCE).to_pylist()] for start in range(0, len(table), _ROWS_AT_ONCE)
        ]
