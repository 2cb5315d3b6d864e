"""The archive on a disk that is slow and fails: tables in memory, under the product's `CountedTable`, `Snapshot` and `read_events`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from tests.simulation.network import Process

from tidemill.offline.delta import CountedTable
from tidemill.testing.lake import MemoryCountedTable, MemoryLake, MemoryTable


class Lake(MemoryLake):
    """The offline store as one process has it; `tables` are those of all. `commit_seconds`: how long a commit takes at most; `faults`: share
    of commits that fail, half of them after they took effect."""

    def __init__(self, process: Process, tables: dict[str, MemoryTable]) -> None:
        super().__init__()
        self.tables = tables
        self.process = process
        self.commit_seconds = 0.05
        self.faults = 0.0

    def counted_table(self, name: str, schema: pa.Schema, description: str = "") -> CountedTable:
        """A table, to append to."""
        return SlowTable(self, name, schema, description)


class SlowTable(MemoryCountedTable):
    """A table whose writer can be killed, or be overtaken, before and after each commit."""

    def __init__(self, lake: Lake, name: str, schema: pa.Schema, description: str) -> None:
        super().__init__(lake.tables, name, schema, description)
        self._lake = lake

    def _load(self) -> Any:
        self._lake.process.busy(0.02 * self._lake.process.draw.random())
        return super()._load()

    def _write(self, table: Any, rows: pa.Table | pa.RecordBatch, moves: Mapping[str, tuple[int, int]]) -> None:
        lake, process = self._lake, self._lake.process
        process.busy(lake.commit_seconds * process.draw.random())
        fate = process.draw.random()
        if fate < lake.faults / 2:
            raise OSError("No space left on device")
        super()._write(table, rows, moves)
        process.busy(0.02 * process.draw.random())
        if fate < lake.faults:
            raise OSError("the answer was lost")
