"""Reading a view as it was: for many questions "entity e at time t", the features from the archived events that were known then.

Nearly all questions are answered at once (kernel/at_once.py). The others are answered entity by entity, its events folded one by one in the
order in which they became known, each question between two of them: those of views with lists, or whose events wait; of entities with an id
that was published twice, or that were erased; and those that see events of the very moment of their own event. So work and memory depend on the entities that are
asked about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, TIME
from tidemill.archive.view_rows import KEY, numbers_of
from tidemill.declarations import FeatureView
from tidemill.declarations.expressions import Column
from tidemill.declarations.texts import kept
from tidemill.kernel.arrays import Numbers
from tidemill.kernel.at_once import ReadAtOnce
from tidemill.kernel.packed import EntityState
from tidemill.kernel.recent import Recent
from tidemill.kernel.served import Served, serve
from tidemill.kernel.tile_versions import Events, Ints, Pairs
from tidemill.kernel.view import ViewKernel

Answers = npt.NDArray[Any]
"""Features, shape (questions, features): numbers, NaN where a request would see no value; a text stands as such in an array of objects."""

NoteServed = Callable[[int, Served], None]
"""Gets the place of a question and all that it is served."""

_BLOCK_ROWS = 20_000


class Questions(NamedTuple):
    """`keys`: the entity of each question; `times_ms`: its time; `own`: the place of the event that announces it among the rows, -1 if it is
    none of them."""

    keys: pa.Array
    times_ms: Ints
    own: Ints


def features_of(view: FeatureView, rows: pa.Table, questions: Questions) -> Answers:
    """The features of each question; of one that is a list NaN.

    `rows`: as `view_rows` gives them, in the order of known. A question sees the rows known at or before its time, but its own event only if
    that became known before its time.
    """
    found, left = at_once(view, rows, questions)
    if len(left):
        found[left] = one_by_one(view, *part_of(rows, questions, left))
    return found


def at_once(view: FeatureView, rows: pa.Table, questions: Questions) -> tuple[Answers, Ints]:
    """The features of the questions that can be answered at once; and the places of the others, for which they are NaN."""
    found, reader = nothing(view, len(questions.times_ms)), ReadAtOnce.of(ViewKernel(view.over_places(), lacking_fields(view, rows)))
    if reader is None or not len(rows):
        return found, np.arange(len(found))
    log = _Log(view, rows)
    seen = log.seen(questions)
    left = (seen.tail < seen.end) | log.again(seen.start, seen.end) | log.erased(seen.start, seen.end)
    places = np.flatnonzero(~left & (seen.start < seen.first))
    if len(places):
        columns = {text: _numbers(column, log.rows) for text, column in view.columns.items()}
        texts = {i: log.list_texts(view.served[i].aggregation.column or "", columns) for i in _texts(view)}
        events = Events(log.entities, log.times_ms, columns)
        del log  # it holds as much memory as the reader needs
        found[places] = reader.read(events, seen.first[places] - 1, questions.times_ms[places])
        for i, listed in texts.items():
            found[places, i] = [listed[int(place)] if place >= 0 else math.nan for place in found[places, i]]
    return found, np.flatnonzero(left)


def part_of(rows: pa.Table, questions: Questions, places: Ints) -> tuple[pa.Table, Questions]:
    """Some of the questions, and the rows of their entities."""
    keys = questions.keys.take(pa.array(places))
    held = pc.indices_nonzero(pc.is_in(rows[KEY], value_set=keys.unique()))
    standing = np.full(len(rows) + 1, -1)
    standing[held.to_numpy()] = np.arange(len(held))
    return rows.take(held), Questions(keys, questions.times_ms[places], standing[questions.own[places]])


def one_by_one(view: FeatureView, rows: pa.Table, questions: Questions, note: NoteServed = lambda _place, _served: None) -> Answers:
    """As `features_of`, entity by entity and event by event. `note` gets the place of each question whose entity has events, and what it is
    served."""
    found, kernel = nothing(view, len(questions.times_ms)), ViewKernel(view, lacking_fields(view, rows))
    if not len(rows):
        return found
    log = _Log(view, rows)
    seen = log.seen(questions)
    order = np.lexsort((questions.times_ms, seen.tail, seen.first, seen.start))
    order = order[seen.start[order] < seen.end[order]]
    for places in np.split(order, np.flatnonzero(np.diff(seen.start[order])) + 1):
        if len(places):
            log.answer(kernel, seen, places, questions.times_ms, found, note)
    return found


def nothing(view: FeatureView, questions: int) -> Answers:
    """The features of so many questions, none of which has a value."""
    return np.full((questions, len(view.served)), math.nan, object if _texts(view) else np.float64)


def _texts(view: FeatureView) -> list[int]:
    """The places of the features that are texts."""
    return [i for i, feature in enumerate(view.served) if feature.aggregation.gives is str]


def lacking_fields(view: FeatureView, rows: pa.Table) -> list[str]:
    """The fields that some rows lack although they may not be null: the view's source did not have them when these events were published."""
    return [name for name in view.value_fields if rows[name].null_count and not view.source.nullable(name)]


def codes_of(indices: pa.Array) -> Ints:
    """Indices as numbers, -1 for null."""
    codes: Ints = indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def _numbers(column: Column, rows: pa.Table) -> Numbers:
    """The values of a column; of a text only whether they are there (but see `_Log.list_texts`)."""
    field = rows[column.text] if column.text in rows.column_names else None
    if field is None:
        found = np.fromiter((math.nan if x is None else x for x in numbers_of(column, rows.select(column.fields))), np.float64, len(rows))
        return Numbers(found, ~np.isnan(found))
    there = field.is_valid().to_numpy() if field.null_count else None
    if pa.types.is_string(field.type):
        return Numbers(np.zeros(len(rows)), there)
    return Numbers(field.cast(pa.float64()).fill_null(0.0).to_numpy(), there)


class _SeenRows(NamedTuple):
    """Which rows each question sees: its entity's are those from `start`; it sees those before `first`, and those from `tail` to `end`."""

    start: Ints
    first: Ints
    tail: Ints
    end: Ints


class _Log:
    """The rows of a view by entity, those of an entity in the order of known."""

    def __init__(self, view: FeatureView, rows: pa.Table) -> None:
        self._view, self._texts = view, _texts(view)
        entities = rows[KEY].combine_chunks().dictionary_encode()
        self._known_entities, codes = entities.dictionary, codes_of(entities.indices)
        self._order = np.argsort(codes, kind="stable")
        self.entities: Ints = codes[self._order]
        self.rows = rows.drop_columns([KEY]).take(pa.array(self._order))
        self.times_ms: Ints = self.rows[TIME].to_numpy()
        self._known_ms: Ints = self.rows[KNOWN].to_numpy()
        self._id_codes = codes_of(self.rows[ID].combine_chunks().dictionary_encode().indices)
        self._values = [_Column(self.rows[name]) for name in view.value_fields]
        self._ids = _Column(self.rows[ID])
        self._make = msgspec.defstruct("Values", list(view.value_fields), frozen=True, gc=False)
        self._again = np.append(0, np.cumsum((np.bincount(self._id_codes + 1) > 1)[self._id_codes + 1] & (self._id_codes >= 0)))

    def seen(self, questions: Questions) -> _SeenRows:
        """The rows that each question sees; none where there is no such entity."""
        asked = codes_of(pc.index_in(questions.keys, value_set=self._known_entities))
        pairs = Pairs(self.entities, self._known_ms)
        start = np.searchsorted(self.entities, asked)
        end = np.searchsorted(pairs.of(self.entities, self._known_ms), pairs.of(asked, questions.times_ms + 1))
        standing = np.empty(len(self._order) + 1, np.int64)
        standing[self._order], standing[-1] = np.arange(len(self._order)), -1
        own = standing[questions.own]
        hidden = (start <= own) & (own < end)
        hidden[hidden] = self._known_ms[own[hidden]] == questions.times_ms[hidden]
        return _SeenRows(start, np.where(hidden, own, end), np.where(hidden, own + 1, end), end)

    def list_texts(self, name: str, columns: dict[str, Numbers]) -> list[str]:
        """The texts of a field, as features keep them. In `columns` they become places in this list."""
        listed = self.rows[name].combine_chunks().dictionary_encode()
        columns[name] = columns[name]._replace(values=codes_of(listed.indices).astype(np.float64))
        return [kept(text) for text in listed.dictionary.to_pylist()]

    def again(self, start: Ints, end: Ints) -> npt.NDArray[np.bool_]:
        """Whether some rows from `start` to `end` have an id that is there twice. Any other id changes nothing."""
        return self._again[end] > self._again[start]

    def erased(self, start: Ints, end: Ints) -> npt.NDArray[np.bool_]:
        """Whether some rows from `start` to `end` erase the entity."""
        if self._view.erasure is None:
            return np.zeros(len(start), bool)
        erases = map(bool, numbers_of(self._view.erasure, self.rows))
        until = np.append(0, np.cumsum(np.fromiter(erases, bool, len(self.rows))))
        found: npt.NDArray[np.bool_] = until[end] > until[start]
        return found

    def answer(self, kernel: ViewKernel, seen: _SeenRows, places: Ints, times_ms: Ints, found: Answers, note: NoteServed) -> None:
        """Writes the answers of some questions about one entity, in the order in which the fold reaches them, into `found`."""
        start, end = int(seen.start[places[0]]), int(seen.end[places].max())
        dedupe = bool(self._again[end] > self._again[start])
        state, folded, events = kernel.new_state(), start, self._events(start, end, dedupe)
        recent = kernel.new_recent() if dedupe else None
        before: list[int] = []
        values: list[Any] = []
        served = serve(self._view, None, 0)
        columns = (seen.first, seen.tail, seen.end, times_ms)
        for place, *question in zip(places.tolist(), *(column[places].tolist() for column in columns), strict=True):
            first, tail, last, time_ms = question
            _fold(kernel, state, recent, islice(events, first - folded))
            folded = first
            if question != before:  # many questions share an entity and a time
                before, seen_state = question, state
                rest = self._rest(first, tail, last)
                if rest:
                    seen_state, seen_recent = kernel.reopen(kernel.encode(state)), None if recent is None else recent.copy()
                    _fold(kernel, seen_state, seen_recent, chain.from_iterable(self._events(row, row + 1, dedupe) for row in rest))
                reading = kernel.read_state(seen_state, time_ms) if first > start or rest else None
                served = serve(self._view, reading, time_ms)
                values = [*served.values]
                for i in self._texts:
                    values[i] = served.value(i)
            found[place] = values
            note(place, served)

    def _rest(self, own: int, tail: int, end: int) -> list[int]:
        """The rows from `tail` to `end` that are no second publication of the row `own`."""
        if tail == end:
            return []
        code = self._id_codes[own]
        return [row for row in range(tail, end) if code < 0 or self._id_codes[row] != code]

    def _events(self, start: int, end: int, dedupe: bool) -> Iterator[_FoldedRow]:
        """What is folded of the rows from `start` to `end`; without ids unless `dedupe`."""
        make = self._make
        for begin in range(start, end, _BLOCK_ROWS):
            stop = min(begin + _BLOCK_ROWS, end)
            ids: list[str | None] = self._ids.cut(begin, stop) if dedupe else [None] * (stop - begin)
            columns = [column.cut(begin, stop) for column in self._values]
            values = map(make, *columns) if columns else [make()] * (stop - begin)
            yield from zip(self._known_ms[begin:stop].tolist(), self.times_ms[begin:stop].tolist(), ids, values, strict=True)


_FoldedRow = tuple[int, int, str | None, object]
"""When it became known, its time, its id, its values."""


def _fold(kernel: ViewKernel, state: EntityState, recent: Recent | None, events: Iterable[_FoldedRow]) -> None:
    """Folds events of an entity. `recent`: the memory of those before them. In the order of known, the log's time is that of each event."""
    apply = kernel.apply
    for known_ms, time_ms, event_id, values in events:
        if recent is not None and known_ms >= recent.turn_ms:
            recent.turn(known_ms, 0)
        if recent is None or event_id is None or not recent.again(b"", event_id):
            apply(state, time_ms, event_id, values)


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
