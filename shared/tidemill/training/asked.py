"""Reading a view as it was: for many questions "entity e at time t", the features from the archived events that were known then.

The events of one entity are folded in the order in which they became known, and each question is answered between two of them. So work and
memory depend on the entities that are asked about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, TIME
from tidemill.archive.view_rows import KEY
from tidemill.declarations import FeatureView
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Questions(NamedTuple):
    """`keys`: the entity of each question; `times_ms`: its time; `own`: the place of the event that announces it among the rows, -1 if it is
    none of them."""

    keys: pa.Array
    times_ms: Ints
    own: Ints


class _Question(NamedTuple):
    """It sees the rows of its entity before `first`, and those from `tail` to `end`. `place`: where its answer belongs."""

    first: int
    tail: int
    end: int
    time_ms: int
    place: int


_BLOCK_ROWS = 20_000


def features_of(view: FeatureView, rows: pa.Table, questions: Questions) -> Floats:
    """The features of each question: shape (questions, features), NaN where a request would see no value.

    `rows`: as `view_rows` gives them, in the order of known. A question sees the rows known at or before its time, but its own event only if
    that became known before its time.
    """
    found = np.full((len(questions.times_ms), len(view.served)), math.nan)
    if not len(rows) or not len(questions.times_ms):
        return found
    kernel = ViewKernel(view, lacking_fields(view, rows))
    entities = rows[KEY].combine_chunks().dictionary_encode()
    codes = codes_of(entities.indices)
    order = np.argsort(codes, kind="stable")
    standing = np.empty(len(order), np.int64)
    standing[order] = np.arange(len(order))
    own = np.where(questions.own < 0, -1, standing[questions.own])
    asked = codes_of(pc.index_in(questions.keys, value_set=entities.dictionary))
    log = _Log(view, rows.take(pa.array(order)))
    starts = _starts(codes[order], len(entities.dictionary))
    by_entity = np.argsort(asked, kind="stable")
    bounds = _starts(asked[by_entity], len(entities.dictionary))
    for entity in np.flatnonzero(np.diff(bounds)).tolist():
        places = by_entity[bounds[entity] : bounds[entity + 1]]
        log.answer(kernel, int(starts[entity]), int(starts[entity + 1]), Asking(places, questions.times_ms[places], own[places]), found)
    return found


def lacking_fields(view: FeatureView, rows: pa.Table) -> list[str]:
    """The fields that some rows lack although they may not be null: the view's source did not have them when these events were published."""
    return [name for name in view.value_fields if rows[name].null_count and not view.source.nullable(name)]


def codes_of(indices: pa.Array) -> Ints:
    """Indices as numbers, -1 for null."""
    codes: Ints = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _starts(codes: Ints, count: int) -> Ints:
    """Where each of `count` codes begins among sorted codes, and where the last one ends."""
    starts: Ints = np.searchsorted(codes, np.arange(count + 1))
    return starts


class Asking(NamedTuple):
    """The questions of one entity: their places, times and own rows."""

    places: Ints
    times_ms: Ints
    own: Ints


class _Log:
    """The rows of a view by entity, in the order of known."""

    def __init__(self, view: FeatureView, rows: pa.Table) -> None:
        self._view = view
        self._known_ms: Ints = rows[KNOWN].to_numpy()
        self._times_ms: Ints = rows[TIME].to_numpy()
        self._values = [_Column(rows[name]) for name in view.value_fields]
        self._make = msgspec.defstruct("Values", list(view.value_fields), frozen=True, gc=False)
        self._ids = _Column(rows[ID])
        self._id_codes = codes_of(rows[ID].combine_chunks().dictionary_encode().indices)
        self._again = (np.bincount(self._id_codes + 1) > 1)[self._id_codes + 1] & (self._id_codes >= 0)

    def answer(self, kernel: ViewKernel, start: int, end: int, asking: Asking, found: Floats) -> None:
        """Writes the answers of the entity whose rows are `start` to `end` into `found`."""
        dedupe = bool(self._again[start:end].any())  # an id that stands once changes nothing
        apply, state, folded, events = kernel.apply, kernel.new_state(), start, self._events(start, end, dedupe)
        before: tuple[int, ...] = ()
        values: list[float] = []
        for first, tail, last, time_ms, place in self._in_order(start, end, asking):
            for event in islice(events, first - folded):
                apply(state, *event)
            folded = first
            if (first, tail, last, time_ms) != before:  # many questions share an entity and a time
                before, seen = (first, tail, last, time_ms), state
                rest = self._rest(first, tail, last)
                if rest:
                    seen = kernel.reopen(kernel.encode(state))
                    for row in rest:
                        apply(seen, *next(self._events(row, row + 1, dedupe)))
                reading = kernel.read_state(seen, time_ms) if first > start or rest else None
                values = serve(self._view, reading, time_ms).values
            found[place] = values

    def _in_order(self, start: int, end: int, asking: Asking) -> list[_Question]:
        """The questions of an entity, in the order in which the fold reaches them."""
        known = start + np.searchsorted(self._known_ms[start:end], asking.times_ms, "right")
        hidden = (asking.own >= start) & (asking.own < known) & (self._known_ms[asking.own] == asking.times_ms)
        first, tail = np.where(hidden, asking.own, known), np.where(hidden, asking.own + 1, known)
        columns = (first, tail, known, asking.times_ms, asking.places)
        return sorted(map(_Question._make, zip(*(column.tolist() for column in columns), strict=True)))

    def _rest(self, own: int, tail: int, end: int) -> list[int]:
        """The rows from `tail` to `end` that are no second publication of the row `own`."""
        if tail == end:
            return []
        code = self._id_codes[own]
        return [row for row in range(tail, end) if code < 0 or self._id_codes[row] != code]

    def _events(self, start: int, end: int, dedupe: bool) -> Iterator[tuple[int, str | None, object]]:
        """Time, id and values of the rows from `start` to `end`."""
        make = self._make
        for begin in range(start, end, _BLOCK_ROWS):
            stop = min(begin + _BLOCK_ROWS, end)
            ids: list[str | None] = self._ids.cut(begin, stop) if dedupe else [None] * (stop - begin)
            columns = [column.cut(begin, stop) for column in self._values]
            values = map(make, *columns) if columns else [make()] * (stop - begin)
            yield from zip(self._times_ms[begin:stop].tolist(), ids, values, strict=True)


class _Column:
    """A column whose stretches become Python values fast."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._nulls = column.is_null().to_numpy() if column.null_count else None
        self._text = column.combine_chunks() if pa.types.is_string(column.type) else None
        self._numbers = column.fill_null(_NOTHING[column.type]).to_numpy() if self._text is None else None

    def cut(self, start: int, end: int) -> list[Any]:
        """The values from `start` to `end`, None for null."""
        if self._numbers is None:
            return [] if self._text is None else self._text.slice(start, end - start).to_pylist()
        values: list[Any] = self._numbers[start:end].tolist()
        if self._nulls is not None:
            for i in np.flatnonzero(self._nulls[start:end]).tolist():
                values[i] = None
        return values


_NOTHING: dict[pa.DataType, Any] = {pa.int64(): 0, pa.float64(): 0.0, pa.bool_(): False}
