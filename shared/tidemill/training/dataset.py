"""Point-in-time training sets: every row has exactly the inputs that a request at that moment would have had.

Everything comes from the archive and from the declarations of today: questions and labels (`spine`), and the features, which the kernel folds
from the events known at each moment (`asked`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tidemill.archive.view_rows import entity_texts, view_rows
from tidemill.declarations import Event, FeatureView, Model, Request
from tidemill.declarations.models import FeatureInput, class_name
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, TidemillError
from tidemill.models.artifact import ModelInput, inputs_of
from tidemill.models.contents import measure
from tidemill.models.inputs import ModelInputs, content_of, within_float32
from tidemill.offline.store import OfflineStore
from tidemill.training.answers import Ints
from tidemill.training.asked import Answers, Questions, lacking_fields
from tidemill.training.labels import read_labels
from tidemill.training.sharing import Sharing
from tidemill.training.spine import Archived, Spine, archived_spine, model_fields, no_examples, view_fields

Floats = npt.NDArray[np.float32]
Note = Callable[[str], None]
"""Gets messages about progress, and about what the set lacks."""


@dataclass(frozen=True)
class TrainingSet:
    """`values`: shape (rows, inputs), as a request would see them, NaN where it would see none, a category or a content as its place in the list of the
    input; `labels`: 1 or 0, a number, or the place of a text in `texts`; `times_ms`: the requests' times, ascending; `subjects`: the subject of each request; `inputs`: the
    columns; `given`: the fields that requests carry, by name, of a set that was built."""

    values: npt.NDArray[np.float64] | Floats
    labels: npt.NDArray[np.float64]
    times_ms: Ints
    subjects: list[str]
    inputs: list[ModelInput]
    texts: tuple[str, ...] = ()
    given: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def matrix(self) -> Floats:
        """`values` as the model gets them: float32, NaN where float32 cannot hold the number."""
        return within_float32(self.values)

    def numbers(self, place: int) -> Floats:
        """A column of `matrix` as predictions log it: of contents the numbers that stand for them."""
        spec, column = self.inputs[place], self.matrix[:, place]
        if not spec.is_content:
            return column
        stands = np.array([*(measure(spec.kind, content) for content in spec.categories), math.nan], np.float32)
        return np.asarray(stands[np.where(np.isnan(column), len(spec.categories), column).astype(np.int64)])

    def table(self) -> pa.Table:
        """The set with named, typed columns: subject (text), time (timestamp), label (double, or text), then the inputs by name: numbers as
        double, categories and contents as text, null where there is no value."""
        columns = {
            "subject": pa.array(self.subjects, pa.string()),
            "time": pa.array(self.times_ms, pa.timestamp("ms", tz="UTC")),
            "label": pa.array(self.texts, pa.string()).take(self.labels.astype(np.int64))
            if self.texts
            else pa.array(self.labels, pa.float64()),
        }
        for i, spec in enumerate(self.inputs):
            numbers = pa.array(np.asarray(self.values[:, i], np.float64), from_pandas=True)
            columns[spec.name] = pa.array(spec.categories, pa.string()).take(numbers.cast(pa.int64())) if spec.has_texts else numbers
        return pa.table(columns)

    def column(self, name: str) -> pa.Array:
        """A field that requests carry, or an input, by name. Raises KeyError."""
        return self.given[name] if name in self.given else self.table()[name].combine_chunks()

    def write(self, path: Path) -> None:
        """`table` as a Parquet or CSV file, by the name's ending. Raises TidemillError."""
        try:
            (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(self.table(), path)
        except OSError as error:
            raise TidemillError(f"{path} cannot be written: {error}", mend="name a file in a folder that exists and is yours") from error

    def to_parquet(self) -> bytes:
        """`table` as a Parquet file, which is stored beside the model."""
        sink = pa.BufferOutputStream()
        pq.write_table(self.table(), sink, compression="zstd")
        return bytes(sink.getvalue())


def build(
    project: Project, spec: str | None, model: Model, store: OfflineStore, until_ms: int, note: Note, labels: Path | None = None
) -> TrainingSet:
    """The questions of a model before `until_ms` that have an answer by then; with `labels`, the rows of that file (see `read_labels`).

    `spec`: the project's folder, file or module, so that other processes can load it and help (None: this process does all). Raises
    TidemillError when there are no examples.
    """
    if labels is not None:
        spine = read_labels(model, labels, until_ms)
        return _examples(spec, model, Archived(store, view_fields(model.views), int(spine.times_ms[-1]) + 1), spine, note)
    archived = Archived(store, model_fields(model), until_ms)
    return _examples(spec, model, archived, archived_spine(model, archived, until_ms), note)


def taken(examples: TrainingSet, places: Ints) -> TrainingSet:
    """Some of the rows, in this order."""
    given = {name: column.take(pa.array(places, pa.int64())) for name, column in examples.given.items()}
    subjects = [examples.subjects[place] for place in places.tolist()]
    return replace(
        examples,
        values=examples.values[places],
        labels=examples.labels[places],
        times_ms=examples.times_ms[places],
        subjects=subjects,
        given=given,
    )


def needed_events(model: Model, *, own_labels: bool) -> list[Event]:
    """The events whose archive a training set reads."""
    return list(view_fields(model.views) if own_labels else model_fields(model))


def _examples(spec: str | None, model: Model, archived: Archived, spine: Spine, note: Note) -> TrainingSet:
    """The rows of a spine with their features."""
    spine = _of_classes(model, spine, note)
    note(f"{len(spine):,} examples; reading {len(model.views)} views as they were")
    with Sharing(spec) as sharing:
        features = [_view_features(view, archived, model, spine, sharing, note) for view in model.views]
    categories = _categories(model, spine, features)
    values, refused = ModelInputs(model, categories).rows(
        features, {request.name: spine.given[request.name].to_pylist() for request in model.requests}
    )
    if refused:
        note(f"{len(refused):,} examples are left out: as requests they would be refused, such as: {next(iter(refused.values()))}")
        kept = np.setdiff1d(np.arange(len(spine)), np.array(list(refused)))
        spine, values = spine.take(kept), values[kept]
        if not len(spine):
            raise no_examples(model, "every request would be refused")
    subjects, inputs = spine.subjects.to_pylist(), inputs_of(model.plan, categories)
    return TrainingSet(values, spine.labels, spine.times_ms, subjects, inputs, texts=spine.texts, given=spine.given)


def _of_classes(model: Model, spine: Spine, note: Note) -> Spine:
    """The rows whose label is one of the declared classes; all of them where none are declared."""
    if not model.outcome.classes:
        return spine
    names = np.array([class_name(spine.texts[int(label)] if spine.texts else label) for label in spine.labels], object)
    other = ~np.isin(names, model.outcome.class_names)
    if other.any():
        found = ", ".join(sorted(set(names[other]))[:5])
        note(f"{int(other.sum()):,} examples are left out: their outcome is none of the declared classes, such as: {found}")
    if other.all():
        raise no_examples(model, f"no outcome is one of the declared classes ({', '.join(model.outcome.class_names)})")
    return spine.take(np.flatnonzero(~other))


def _categories(model: Model, spine: Spine, features: Sequence[Answers]) -> dict[str, list[str]]:
    """The texts, or the contents, that each input which is one has among the examples, in order."""
    requests = {request: spine.given[request.name].drop_null().unique().to_pylist() for request in model.requests if request.type is str}
    found = {request.name: contents_among(request, given) if request.is_content else sorted(given) for request, given in requests.items()}
    for column in model.plan:
        if isinstance(column, FeatureInput) and column.text:
            found[column.name] = sorted({value for value in features[column.view][:, column.feature] if isinstance(value, str)})
    return found


def contents_among(request: Request, given: Sequence[Any]) -> list[str]:
    """The contents among values of a request, each once and in order; what is none is left out, as its row will be."""
    content, found = content_of(request), set[str | None]()
    for value in given:
        with suppress(BadRequest):
            found.add(content(value))
    return sorted(one for one in found if one is not None)


def _view_features(view: FeatureView, archived: Archived, model: Model, spine: Spine, sharing: Sharing, note: Note) -> Answers:
    events = archived.events(view.source)
    keys = entity_texts(view.key.names, {name: pa.chunked_array([spine.given[name]]) for name in view.key.names}).combine_chunks()
    rows, places = view_rows(view, events, keys.unique().drop_null())
    for name in lacking_fields(view, rows):
        note(f"view {view.name!r}: {rows[name].null_count:,} of {len(rows):,} events have no {name!r}, and count for no feature of it")
    own = np.full(len(spine), -1)
    if view.source is model.on:
        standing = np.full(len(events) + 1, -1)
        standing[places] = np.arange(len(places))
        own = standing[spine.own]
    return sharing.features(view, rows, Questions(keys, spine.times_ms, own))
