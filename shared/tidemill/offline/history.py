"""Reading a view as it was: one sweep over the offline rows answers many questions of the form "entity e, at time t, after these records".

Training sets ask by knowledge (all records known at the request), replay asks by the stamp (all records below a fence).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.kernel.fold import LogEntry, PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import Reading, ViewKernel

_CHUNK_ROWS = 50_000
Ints = npt.NDArray[np.int64]


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
        self._offsets: Ints = table["offset"].to_numpy()
        self._values = _values_class(view)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def end(self) -> int:
        """The offset after the last row; 0 without rows."""
        return int(self._offsets[-1]) + 1 if len(self._offsets) else 0

    def rows_below(self, offset: int) -> int:
        """How many records lie below an offset."""
        return int(self._offsets.searchsorted(offset))

    def by_knowledge(self) -> KnownLog:
        """The usable records in the order in which they became known, each once."""
        table = self._usable()
        table = table.take(pc.sort_indices(table, [("known", "ascending"), ("offset", "ascending")]))
        positions = pa.array(np.arange(len(table)), pa.int64())
        table = table.set_column(
            table.schema.get_field_index("source_partition"), "source_partition", pa.array(np.zeros(len(table), np.int32))
        )
        return KnownLog(self.view, table.set_column(table.schema.get_field_index("source_offset"), "source_offset", positions))

    def of(self, entities: Collection[bytes]) -> PartitionLog:
        """The usable records of some entities, each once: what an entity shows depends on no other one's, once it is known what was sent twice."""
        table, keys = self._usable(), pa.array([entity.decode() for entity in entities], pa.string())
        return PartitionLog(self.view, table.filter(pc.is_in(table["key"], value_set=keys)))

    def _usable(self) -> pa.Table:
        table = self._table.filter(pc.field("time").is_valid())
        return table.filter(pa.array(~resent(table["source_partition"].to_numpy(), table["source_offset"].to_numpy())))

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[LogEntry]:
        """The records of rows start to end, as a worker decodes them; one that could not be decoded has no `record`."""
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


class KnownLog(PartitionLog):
    """The records of a partition in order of knowledge. A log that was loaded in bulk says nothing about when its records became known; this does."""

    def rows_known_at(self, times_ms: Ints) -> Ints:
        """How many records were known at each time."""
        known: Ints = self._table["known"].to_numpy()
        return known.searchsorted(times_ms, "right")


def resent(partitions: Ints, offsets: Ints) -> npt.NDArray[np.bool_]:
    """Which records ingestion sent again: their source position is not above all earlier ones of that source partition."""
    twice = np.zeros(len(offsets), dtype=bool)
    for partition in np.unique(partitions):
        mine = np.flatnonzero(partitions == partition)
        highest = np.maximum.accumulate(offsets[mine])
        twice[mine[1:]] = offsets[mine[1:]] <= highest[:-1]
    return twice


class _Record(NamedTuple):
    time: int
    known: int
    source: tuple[int, int]
    values: Any
    id: str | None


def _values_class(view: FeatureView) -> Callable[..., Any]:
    """A named tuple of the view's fields, whose names may also begin with an underscore."""
    places = [f"f{i}" for i in range(len(view.value_fields))]
    made = namedtuple("Values", places)  # type: ignore[misc]
    getters = [getattr(made, place) for place in places]
    for name, getter in zip(view.value_fields, getters, strict=True):
        setattr(made, name, getter)
    return made


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
            answers[i] = kernel.read_state(state, time_ms)
    return answers
