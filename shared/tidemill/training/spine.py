"""The rows of a training set without their features: who was asked about, when, with which values, and what came of it.

They come from the archive, by the declarations of today: the questions from the events that announce a subject, the labels from the events
that bring the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, KNOWN, MOMENT
from tidemill.archive.moments import moments_of
from tidemill.archive.reading import read_events
from tidemill.archive.view_rows import key_texts, numbers_of
from tidemill.declarations import Event, FeatureView, Model, Outcome
from tidemill.declarations.texts import kept
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.timestamps import LAST_MS
from tidemill.training.answers import Announced, Floats, Ints, Outcomes, answers, questions


@dataclass(frozen=True)
class Spine:
    """`subjects`: text; `times_ms`: ascending; `labels`: 1 or 0, a number, or the place of a text in `texts`; `given`: a column for each of the
    model's `request_fields`; `own`: the place of the announcing event among the events read, -1 without one."""

    subjects: pa.Array
    times_ms: Ints
    labels: Floats
    given: Mapping[str, pa.Array]
    own: Ints
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Ints) -> Spine:
        """Some of the rows."""
        rows = pa.array(places, pa.int64())
        given = {name: column.take(rows) for name, column in self.given.items()}
        return Spine(self.subjects.take(rows), self.times_ms[places], self.labels[places], given, self.own[places], self.texts)


class Archived:
    """The archived events that became known before `until_ms`. Each event is read once, with all fields that `fields_of` names for it."""

    def __init__(self, store: OfflineStore, fields: Mapping[Event, set[str]], until_ms: int) -> None:
        self._store, self._fields, self._until_ms = store, fields, until_ms
        self._read: dict[Event, pa.Table] = {}

    def events(self, event: Event) -> pa.Table:
        """`_known`, `_time` (epoch ms), `_id` and the fields, in the order of known."""
        if event not in self._read:
            before = pc.field(KNOWN) < pa.scalar(self._until_ms * 1000, MOMENT)
            table = read_events(self._store, event, sorted(self._fields[event]), filters=before)
            self._read[event] = table.drop_columns(["_topic", "_partition", "_offset"]).combine_chunks()
            pa.default_memory_pool().release_unused()  # of reading: what follows needs as much
        return self._read[event]


def view_fields(views: tuple[FeatureView, ...]) -> dict[Event, set[str]]:
    """The fields of events that these views need."""
    fields: dict[Event, set[str]] = {}
    for view in views:
        fields.setdefault(view.source, set()).update(view.read_fields)
    return fields


def model_fields(model: Model) -> dict[Event, set[str]]:
    """The fields of events that a model's views, questions and labels need."""
    fields = view_fields(model.views)
    fields.setdefault(model.on, set()).update((model.subject, model.at, *model.request_fields))
    fields.setdefault(model.outcome.source, set()).update((model.outcome.subject, *model.outcome.column.fields))
    return fields


def archived_spine(model: Model, archived: Archived, until_ms: int) -> Spine:
    """The questions that have an answer, in order of time. Raises TidemillError when there is none."""
    events = archived.events(model.on)
    until_ms = min(until_ms, 1 + max(_newest(events), _newest(archived.events(model.outcome.source))))  # no event says what came later
    subjects, at_ms = key_texts(events[model.subject]).combine_chunks(), moments_of(events[model.at], model.on.earliest_ms).combine_chunks()
    usable = pc.indices_nonzero(pc.and_(subjects.is_valid(), at_ms.is_valid())).to_numpy().astype(np.int64)
    subjects = subjects.take(pa.array(usable))
    known = subjects.unique()
    announced = Announced(
        pc.index_in(subjects, value_set=known).to_numpy().astype(np.int64),
        at_ms.take(pa.array(usable)).to_numpy(),
        events[KNOWN].to_numpy()[usable],
        id_codes(events[ID])[usable],
    )
    asked = questions(announced, until_ms)
    if not len(asked):
        raise no_examples(model, f"no event {model.on.name!r} announces a subject")
    texts, wait = dict[str, int](), model.outcome.wait
    outcomes = _outcomes(model, archived.events(model.outcome.source), known, texts)
    if isinstance(wait.absent, str):
        wait = wait._replace(absent=float(texts.setdefault(wait.absent, len(texts))))
    labels = answers(announced.subjects[asked], announced.at_ms[asked], outcomes, wait, until_ms)
    answered = np.flatnonzero(~np.isnan(labels))
    if not len(answered):
        waits = f", or the wait of {model.outcome.within} is over for none" if model.outcome.absent is not None else ""
        raise no_examples(model, f"no announced subject has an outcome{waits}")
    asked, labels = asked[answered], labels[answered]
    own = usable[asked]
    given = {name: events[name].combine_chunks().take(pa.array(own)) for name in model.request_fields}
    return Spine(subjects.take(pa.array(asked)), announced.at_ms[asked], labels, given, own, tuple(texts))


def _newest(events: pa.Table) -> int:
    """When the newest event became known, epoch ms; -1 without one."""
    return -1 if not len(events) else pc.max(events[KNOWN]).as_py()


def _outcomes(model: Model, events: pa.Table, known: pa.Array, numbers: dict[str, int]) -> Outcomes:
    """The outcome events that have a subject and a value. A subject that nobody asked about is -1; `numbers` gets the number of each text."""
    outcome = model.outcome
    texts = key_texts(events[outcome.subject])
    places = pc.indices_nonzero(texts.is_valid())
    rows, subjects = events.take(places), pc.index_in(texts.take(places), value_set=known).fill_null(-1)
    values, ids = _values(outcome, rows, numbers), id_codes(events[ID])[places.to_numpy()]
    there = np.isfinite(values)
    asks_ms = None
    if outcome.source is model.on:
        asks_ms = moments_of(rows[model.at], model.on.earliest_ms).fill_null(LAST_MS).to_numpy().astype(np.int64)[there]
    return Outcomes(subjects.to_numpy().astype(np.int64)[there], rows[KNOWN].to_numpy()[there], values[there], ids[there], asks_ms)


def _values(outcome: Outcome, rows: pa.Table, numbers: dict[str, int]) -> Floats:
    """The outcome of each event, NaN where it has none; computed as routing does. A text is its number in `numbers`."""
    if outcome.is_text:
        return numbered(rows[outcome.value], numbers)
    return np.array([np.nan if value is None else value for value in numbers_of(outcome.column, rows)], np.float64)


def numbered(column: pa.ChunkedArray, texts: dict[str, int]) -> Floats:
    """The numbers of texts, as far as they are kept; NaN for null. A text without a number gets the next one."""
    listed = column.combine_chunks().dictionary_encode()
    numbers = [float(texts.setdefault(kept(text), len(texts))) for text in listed.dictionary.to_pylist()]
    codes = listed.indices.fill_null(len(numbers)).to_numpy()
    found: Floats = np.array([*numbers, np.nan])[codes]
    return found


def id_codes(ids: pa.ChunkedArray) -> Ints:
    """Ids as numbers: equal numbers mean equal ids, -1 means no id."""
    codes: Ints = ids.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    return codes


def no_examples(model: Model, why: str) -> TidemillError:
    """The error for a training set without rows."""
    return TidemillError(
        f"model {model.name!r} has no training examples: {why}",
        mend=f"publish events {model.on.name!r} and {model.outcome.source.name!r}, or load their history, and let the offline writer reach them",
    )
