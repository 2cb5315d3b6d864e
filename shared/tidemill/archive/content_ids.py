"""Ids of events that carry none: made of their content, so that a second file with the same rows does not count them again."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, OFFSET, PARTITION, TOPIC
from tidemill.declarations import Event

_APART = "\x1f"


class ContentIds:
    """Gives the events of one file ids. Equal events of a file are several events: the second one's id ends in `-1`."""

    def __init__(self, event: Event, schema: pa.Schema) -> None:
        self._names = [name for name in schema.names if name not in (TOPIC, PARTITION, OFFSET, KNOWN, ID, event.time)]
        self._seen = _Seen()

    def filled(self, rows: pa.Table) -> pa.Table:
        """The rows, each with an id. Call it with all rows of the file, in their order."""
        if not rows[ID].null_count:
            return rows
        rows = rows.combine_chunks()
        without = rows.filter(rows[ID].is_null())
        digests = [blake2b(content, digest_size=16).digest() for content in _contents(without.select(self._names))]
        ids = [digest.hex() for digest in digests]
        numbers = self._seen.numbers(np.frombuffer(b"".join(digests), np.uint64)[::2])
        for row in np.flatnonzero(numbers).tolist():
            ids[row] += f"-{numbers[row]}"
        found = pc.replace_with_mask(rows[ID].combine_chunks(), rows[ID].is_null().combine_chunks(), pa.array(ids, pa.string()))
        return rows.set_column(rows.schema.get_field_index(ID), rows.schema.field(ID), found)


class _Seen:
    """How often numbers have come, in 8 bytes for each: sorted arrays, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._sorted: list[np.ndarray[tuple[int], np.dtype[np.uint64]]] = []

    def numbers(self, found: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Of each number: how many equal ones came before it."""
        order = np.argsort(found, kind="stable")
        run = found[order]
        earlier = np.arange(len(run)) - np.searchsorted(run, run)
        for other in self._sorted:
            start = np.searchsorted(other, run)
            (again,) = np.nonzero(other[np.minimum(start, len(other) - 1)] == run)
            earlier[again] += np.searchsorted(other, run[again], "right") - start[again]
        before = np.empty(len(found), np.int64)
        before[order] = earlier
        while self._sorted and len(self._sorted[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._sorted.pop(), run]))
        self._sorted.append(run)
        return before


def _contents(rows: pa.Table) -> list[bytes]:
    """Each row as bytes; different rows have different ones."""
    parts = [pc.fill_null(_content(column), "") for column in rows.combine_chunks().columns]
    found: list[bytes] = pc.binary_join_element_wise(*parts, _APART).cast(pa.binary()).to_pylist()
    return found


def _content(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):  # any character may stand in it, so its length goes before
        return pc.binary_join_element_wise(pc.binary_length(column).cast(pa.string()), column, _APART)
    if pa.types.is_floating(column.type):  # by its bits
        column = pa.array(column.to_numpy(zero_copy_only=False).view(np.int64), mask=column.is_null().to_numpy(zero_copy_only=False))
    return column.cast(pa.string())
