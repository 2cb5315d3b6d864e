"""Reading a view as it was: one pass over the offline rows answers many questions "entity e, at time t, after the first n records".

Replay counts the records below a fence of the stamp. Training sets do not read logs but the archive (`training/asked.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.errors import AbsentColumns
from tidemill.kernel.fold import LogEntry, PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import Reading, ViewKernel
from tidemill.records import since_of

_CHUNK_ROWS = 50_000
Ints = npt.NDArray[np.int64]


class Question(NamedTuple):
    """Which values had `entity` at `time_ms`, after the first `rows` records of its partition?"""

    rows: int
    entity: bytes
    time_ms: int


class PartitionLog:
    """The offline rows of one partition of a view, in offset order.

    `since_ms`: since when events feed the view (see `Fence.since`). Raises AbsentColumns when some rows are older than a column that the
    view folds now.
    """

    def __init__(self, view: FeatureView, table: pa.Table, since_ms: int | None = None) -> None:
        self.view = view
        self._table = table
        self._offsets: Ints = table["offset"].to_numpy()
        self._values = _values_class(view)
        self._check_columns()
        self.since_ms = told_since(table) if since_ms is None else since_ms

    def _check_columns(self) -> None:
        """A field that may not be null is null in two cases only: the record cannot be decoded, or it lacks the field."""
        absent, below = [], 0
        usable = self._table["time"].is_valid()
        for name in self.view.value_fields:
            if f"v_{name}" not in self._table.schema.names:
                lacks = usable
            elif self.view.source.nullable(name) or self._table[f"v_{name}"].null_count == self._table["time"].null_count:
                continue
            else:
                lacks = pc.and_(usable, self._table[f"v_{name}"].is_null())
            if pc.any(lacks).as_py():
                absent.append(name)
                below = max(below, int(self._offsets[lacks.to_numpy()][-1]) + 1)
        if absent:
            raise AbsentColumns(self.view.name, absent, below)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def end(self) -> int:
        """The offset after the last row; 0 without rows."""
        return int(self._offsets[-1]) + 1 if len(self._offsets) else 0

    def rows_below(self, offset: int) -> int:
        """How many records lie below an offset."""
        return int(self._offsets.searchsorted(offset))

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[LogEntry]:
        """The records of rows `start` to `end`, as a worker decodes them; a record that could not be decoded is None."""
        fields = [f"v_{name}" for name in self.view.value_fields]
        columns = ["offset", "key", "proof", "time", "known", "source_partition", "source_offset", "id", *fields]
        make, record = self._values, _Record
        rows = self._table.select(columns).slice(start, None if end is None else end - start)
        for batch in rows.to_batches(max_chunksize=_CHUNK_ROWS):
            for offset, key, proof, time, known, partition, source, event_id, *values in zip(
                *(c.to_pylist() for c in batch.columns), strict=True
            ):
                usable = None if time is None else record(time, known, (partition, source), make(*values), event_id)
                yield LogEntry(offset, key.encode(), proof, usable)


def told_since(rows: pa.Table) -> int:
    """Since when events feed the view, from the rows of its log; 0 when no row says so."""
    if "key" not in rows.schema.names or not rows["time"].null_count:
        return 0
    told = [since_of(key.encode()) for key in rows.filter(pc.field("time").is_null())["key"].to_pylist()]
    return max((since_ms for since_ms in told if since_ms is not None), default=0)


def resent(partitions: Ints, offsets: Ints) -> npt.NDArray[np.bool_]:
    """Which records ingestion sent again: their source position is not above all earlier ones of that source partition."""
    twice = np.zeros(len(offsets), dtype=bool)
    for partition in np.unique(partitions):
        mine = np.flatnonzero(partitions == partition)
        highest = np.maximum.accumulate(offsets[mine])
        twice[mine[1:]] = offsets[mine[1:]] <= highest[:-1]
    return twice


class _Record(msgspec.Struct, frozen=True, gc=False):
    time: int
    known: int
    source: tuple[int, int]
    values: object
    id: str | None


def _values_class(view: FeatureView) -> Callable[..., Any]:
    """A class with the view's fields, made from their values in order."""
    return msgspec.defstruct("Values", list(view.value_fields), frozen=True, gc=False)


def answer(kernel: ViewKernel, log: PartitionLog, questions: Sequence[Question]) -> list[Reading | None]:
    """Answers in the order of the questions (None: no record of the entity), in one pass over the log."""
    order = sorted(range(len(questions)), key=lambda i: questions[i].rows)
    answers: list[Reading | None] = [None] * len(questions)
    states: dict[bytes, EntityState] = {}
    fold, entries, folded = PartitionFold.start(kernel), log.entries(), 0
    for i in order:
        rows, entity, time_ms = questions[i]
        if rows > folded:
            fold.advance([next(entries) for _ in range(rows - folded)], states)
            folded = rows
        state = states.get(entity)
        if state is not None:
            answers[i] = kernel.read_state(state, time_ms, log.since_ms)
    return answers
