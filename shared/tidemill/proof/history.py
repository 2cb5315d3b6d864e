"""Reading a view as it was: one sweep over the offline rows answers many questions of the form "entity e, at time t, after these records".

Training sets ask by knowledge (all records known at the request), replay asks by the stamp (all records below a fence).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidemill.declarations import FeatureView
from tidemill.fold import LogEntry, PartitionFold
from tidemill.kernel import EntityState, Reading, ViewKernel

_CHUNK_ROWS = 50_000


class Question(NamedTuple):
    """What did `entity` show at `time_ms`, after the first `rows` records of its partition?"""

    rows: int
    entity: bytes
    time_ms: int


class PartitionLog:
    """The rows of one partition of a view, in offset order, as the offline store has them."""

    def __init__(self, view: FeatureView, table: pa.Table) -> None:
        self.view = view
        self._table = table
        self.offsets: npt.NDArray[np.int64] = table["offset"].to_numpy()
        known = table["known"].fill_null(0).to_numpy()
        self.known: npt.NDArray[np.int64] = np.maximum.accumulate(known) if len(known) else known
        self._values = _values_class(view)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def end(self) -> int:
        """The offset after the last row; 0 without rows."""
        return int(self.offsets[-1]) + 1 if len(self.offsets) else 0

    def rows_below(self, offset: int) -> int:
        """How many records lie below an offset."""
        return int(self.offsets.searchsorted(offset))

    def rows_known_at(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many records, from the first on, were known at each time: all before the first that was published later."""
        return self.known.searchsorted(times_ms, "right")

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[LogEntry]:
        """The records of rows start to end, as a worker decodes them; one that could not be decoded has no `record`."""
        fields = [f"v_{name}" for name in self.view.value_fields]
        columns = ["offset", "key", "proof", "time", "known", "source_partition", "source_offset", "id", *fields]
        make, record = self._values, _Record
        for batch in self._table.select(columns).slice(start, None if end is None else end - start).to_batches(max_chunksize=_CHUNK_ROWS):
            for offset, key, proof, time, known, partition, source, event_id, *values in zip(
                *(c.to_pylist() for c in batch.columns), strict=True
            ):
                yield LogEntry(
                    offset, key.encode(), proof, None if time is None else record(time, known, (partition, source), make(*values), event_id)
                )


class _Record(NamedTuple):
    time: int
    known: int
    source: tuple[int, int]
    values: Any
    id: str | None


def _values_class(view: FeatureView) -> Callable[..., Any]:
    return NamedTuple("Values", [(name, Any) for name in view.value_fields])  # type: ignore[return-value,misc]


def answer(kernel: ViewKernel, log: PartitionLog, questions: Sequence[Question]) -> list[Reading | None]:
    """Answers in the order of the questions (None: the entity was not known), in one pass over the log."""
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
            answers[i] = kernel.read(kernel.encode(state), time_ms)
    return answers
