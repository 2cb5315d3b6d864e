"""What a project declares: events, feature views, models. Everything is checked when it is written down.

A mistake raises DeclarationError, which names the file and line, the field and the mend.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from tidemill.aggregations import LIFETIME, Aggregation
from tidemill.durations import format_ms, parse_ms
from tidemill.errors import DeclarationError
from tidemill.expressions import Column, parse_column
from tidemill.names import check_name

FIELD_TYPES = (str, int, float, bool)
_LADDER_MS = tuple(parse_ms(text) for text in ("5m", "15m", "1h", "6h", "1d"))
_MOST_TILES = 168  # a window is cut into at most this many tiles: 7 days of 1 h


def _where() -> str:
    """File and line of the declaration: the first frame outside this package."""
    frame = sys._getframe(1)
    home = str(Path(__file__).parent)
    while frame.f_back and (frame.f_code.co_filename.startswith((home, "<"))):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclass(frozen=True, eq=False)
class Event:
    """What an application publishes on a topic.

    `fields`: name -> str, int, float or bool, or one of them `| None` where null (or absence) is allowed. `time`: the field
    with the event's time, a whole number of epoch milliseconds or an RFC 3339 string. `id`: the field (or the CloudEvents
    header `ce_id`) that tells two publications of one event apart. `future`: how far the time may lie ahead of the moment of
    publishing; beyond it the event is a dead letter. `topic`: the topic's name, by default the event's.
    """

    name: str
    fields: Mapping[str, Any]
    time: str
    id: str | None = None
    topic: str = ""
    partitions: int = 4
    future: str = "1h"
    description: str = ""
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, self.where, "name", dots=True)
        object.__setattr__(self, "topic", self.topic or self.name)
        object.__setattr__(self, "fields", dict(self.fields))
        for name, kind in self.fields.items():
            check_name(name, self.where, f"fields[{name!r}]")
            if _base_type(kind) not in FIELD_TYPES:
                self._fail(
                    f"fields[{name!r}]",
                    f"{kind!r} is not a type of an event's field",
                    "write str, int, float or bool, or e.g. `float | None`",
                )
        for label in ("time", "id"):
            named = getattr(self, label)
            if named is not None and named not in self.fields:
                self._fail(label, f"the event has no field {named!r}", f"name one of {', '.join(self.fields)}")
        if self.nullable(self.time) or _base_type(self.fields[self.time]) not in (int, str):
            self._fail("time", f"{self.time!r} must be int (epoch ms) or str (RFC 3339), never null", "change the field's type")
        _duration(self, "future", self.future)

    @property
    def future_ms(self) -> int:
        """`future` in ms."""
        return parse_ms(self.future)

    def nullable(self, name: str) -> bool:
        """Whether a field may be null."""
        return NoneType in get_args(self.fields[name])

    def base_type(self, name: str) -> type:
        """A field's type without `| None`."""
        kind: type = _base_type(self.fields[name])
        return kind

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Event {self.name!r}: {message}", where=self.where, field=name, mend=mend)


@dataclass(frozen=True, eq=False)
class Entity:
    """What a view is keyed by: a field of the event, under the name by which requests give it."""

    name: str
    field: str = ""
    description: str = ""
    where: str = dataclasses.field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, self.where, "name")
        object.__setattr__(self, "field", self.field or self.name)


@dataclass(frozen=True)
class Feature:
    """One value a view serves: `name` within the view, the aggregation, and its window (None: the entity's whole life)."""

    name: str
    aggregation: Aggregation
    window_ms: int | None
    tile_ms: int


@dataclass(frozen=True, eq=False)
class FeatureView:
    """One event source, one entity, some windowed aggregates.

    `windows` such as ["1h", "24h", "7d"] or "lifetime". A window is merged from tiles when it is read; it covers all tiles
    that touch (t - window, t], so at least the window and less than one tile more. `tile` is the finest tile; a longer window
    has a coarser one, so that none needs more than 168: 5 min to 12 h, 15 min to 42 h, 1 h to 7 d, 6 h to 42 d, then 1 d.
    `tiles` names others: {"7d": "6h"}. `ttl`: a value whose newest event is older is served as expired. `dedupe`: how many
    recent event ids are kept for each entity to skip a publisher's duplicates. A late event corrects its tile as long as it lies
    within the longest window before the entity's newest event; later ones are counted and left out.
    """

    name: str
    source: Event
    entity: str | Entity
    features: Sequence[Aggregation]
    windows: Sequence[str] = (LIFETIME,)
    tile: str = "5m"
    tiles: Mapping[str, str] = field(default_factory=dict)
    ttl: str | None = None
    dedupe: int = 8
    partitions: int = 4
    description: str = ""
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, self.where, "name")
        if not isinstance(self.source, Event):
            self._fail("source", f"{self.source!r} is not an Event", "pass the Event object itself")
        entity = Entity(self.entity, where=self.where) if isinstance(self.entity, str) else self.entity
        object.__setattr__(self, "entity", entity)
        if entity.field not in self.source.fields:
            self._fail(
                "entity", f"event {self.source.name!r} has no field {entity.field!r}", f"name one of {', '.join(self.source.fields)}"
            )
        if self.source.base_type(entity.field) not in (str, int):
            self._fail("entity", f"field {entity.field!r} must be str or int to be a key", "change the field's type or choose another")
        if not self.features:
            self._fail("features", "a view without features serves nothing", "add count(), mean(...) or another aggregate")
        if not 0 <= self.dedupe <= 255:
            self._fail("dedupe", f"{self.dedupe} is out of range", "keep between 0 and 255 ids")
        if self.ttl is not None:
            _duration(self, "ttl", self.ttl)
        object.__setattr__(self, "columns", self._parse_columns())
        object.__setattr__(self, "served", self._plan_features())

    columns: dict[str, Column] = field(init=False, repr=False)
    served: tuple[Feature, ...] = field(init=False, repr=False)

    @property
    def key(self) -> Entity:
        """The entity as an Entity."""
        assert isinstance(self.entity, Entity)
        return self.entity

    @property
    def ttl_ms(self) -> int | None:
        """`ttl` in ms."""
        return None if self.ttl is None else parse_ms(self.ttl)

    @property
    def value_fields(self) -> tuple[str, ...]:
        """The event's fields that the view folds, in a fixed order."""
        return tuple(sorted({name for column in self.columns.values() for name in column.fields}))

    def select(self, *names: str) -> Selection:
        """Some of the view's features, as the input of a model."""
        return Selection(self, tuple(names), where=_where())

    def _parse_columns(self) -> dict[str, Column]:
        columns = {}
        for aggregation in self.features:
            if not isinstance(aggregation, Aggregation):
                self._fail("features", f"{aggregation!r} is not an aggregate", 'write count(), mean("field"), ...')
            text = aggregation.column
            if text is None:
                if aggregation.needs_column:
                    self._fail("features", f"{aggregation.word}() needs a field", f'write {aggregation.word}("field")')
                continue
            try:
                column = parse_column(text, self.source.fields)
            except ValueError as error:
                self._fail("features", f"{aggregation.word}({text!r}): {error}", "name a field of the event, or a condition on its fields")
            if column.text in self.source.fields and self.source.base_type(text) is str and aggregation.word not in ("count", "age"):
                self._fail(
                    "features",
                    f"{aggregation.word}({text!r}): {text!r} is text",
                    "aggregate a number, or a condition such as rate(\"kind == 'x'\")",
                )
            columns[text] = column
        return columns

    def _plan_features(self) -> tuple[Feature, ...]:
        served: dict[str, Feature] = {}
        for aggregation in self.features:
            for window in aggregation.windows or tuple(self.windows):
                feature = self._feature(aggregation, window)
                check_name(feature.name, self.where, "features")
                if feature.name in served:
                    self._fail("features", f"two features are called {feature.name!r}", 'give one of them a name: mean("x", name="...")')
                served[feature.name] = feature
        return tuple(served.values())

    def _feature(self, aggregation: Aggregation, window: str) -> Feature:
        label = aggregation.label
        if not label.isidentifier():
            self._fail(
                "features",
                f"{aggregation.word}({aggregation.column!r}) needs a name",
                f'write {aggregation.word}({aggregation.column!r}, name="...")',
            )
        if window == LIFETIME:
            return Feature(label, aggregation, None, 0)
        window_ms, tile_ms = self._tile_of(window)
        return Feature(f"{label}_{window}", aggregation, window_ms, tile_ms)

    def _tile_of(self, window: str) -> tuple[int, int]:
        window_ms = _duration(self, "windows", window)
        finest_ms = _duration(self, "tile", self.tile)
        chosen = self.tiles.get(window)
        if chosen is not None:
            tile_ms = _duration(self, "tiles", chosen)
        else:
            steps = sorted({finest_ms, *(step for step in _LADDER_MS if step > finest_ms)})
            tile_ms = next((step for step in steps if window_ms <= step * _MOST_TILES), steps[-1])
        if window_ms % tile_ms:
            self._fail(
                "windows",
                f"a window of {window} is not a whole number of {format_ms(tile_ms)} tiles",
                f'set tile= or tiles={{"{window}": ...}} to a duration that divides it',
            )
        return window_ms, tile_ms

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"FeatureView {self.name!r}: {message}", where=self.where, field=name, mend=mend)


@dataclass(frozen=True, eq=False)
class Selection:
    """Some features of one view."""

    view: FeatureView
    names: tuple[str, ...]
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        known = [feature.name for feature in self.view.served]
        for name in self.names:
            if name not in known:
                raise DeclarationError(
                    f"FeatureView {self.view.name!r} has no feature {name!r}",
                    where=self.where,
                    field="select",
                    mend=f"choose among {', '.join(known)}",
                )


@dataclass(frozen=True, eq=False)
class Request:
    """A value that comes with the request itself. `type`: float, int, bool, or str for a category."""

    name: str
    type: Any = float
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, self.where, "name")
        if self.type not in FIELD_TYPES:
            raise DeclarationError(
                f"Request {self.name!r}: {self.type!r} is not a type", where=self.where, field="type", mend="write float, int, bool or str"
            )


@dataclass(frozen=True, eq=False)
class Outcome:
    """The true label, arriving later: an event, the field that names the subject, and a field or condition that gives the value.

    `within`: how long after the prediction an outcome may arrive; after that the prediction is marked as never answered.
    """

    source: Event
    value: str
    subject: str
    within: str = "24h"
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        _duration(self, "within", self.within)
        if self.subject not in self.source.fields:
            self._fail(
                "subject", f"event {self.source.name!r} has no field {self.subject!r}", f"name one of {', '.join(self.source.fields)}"
            )
        try:
            object.__setattr__(self, "column", parse_column(self.value, self.source.fields))
        except ValueError as error:
            self._fail("value", str(error), "name a field of the event, or a condition on its fields")

    column: Column = field(init=False, repr=False)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"of {self.source.name}"

    @property
    def within_ms(self) -> int:
        """`within` in ms."""
        return parse_ms(self.within)

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Outcome {self.name}: {message}", where=self.where, field=name, mend=mend)


@dataclass(frozen=True, eq=False)
class Model:
    """A model: its inputs, where its training examples come from, and what makes its scikit-learn pipeline.

    `on`: the event that announces a subject to predict for; its fields give the subject, the entities of the views and the
    Request values. `at`: its field with the moment of the request (epoch ms or RFC 3339). `pipeline`: a callable without
    arguments that returns a scikit-learn classifier or regressor of one float32 matrix with one column per input.
    """

    name: str
    on: Event
    at: str
    subject: str
    inputs: Sequence[FeatureView | Selection | Request]
    outcome: Outcome
    pipeline: Callable[[], Any]
    description: str = ""
    where: str = field(default_factory=_where, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name, self.where, "name")
        for label in ("at", "subject"):
            self._need_field(label, getattr(self, label))
        if not self.inputs:
            self._fail("inputs", "a model without inputs", "add feature views or Request values")
        if not callable(self.pipeline):
            self._fail("pipeline", f"{self.pipeline!r} cannot be called", "pass the function itself, which returns the pipeline")
        for item in self.inputs:
            if isinstance(item, Request):
                self._need_field("inputs", item.name)
            elif isinstance(item, FeatureView | Selection):
                view = item if isinstance(item, FeatureView) else item.view
                self._need_field("inputs", view.key.name)
            else:
                self._fail("inputs", f"{item!r} is not an input", "pass a FeatureView, view.select(...) or Request(...)")
        names = self.input_names
        if len(set(names)) != len(names):
            self._fail("inputs", "an input is named twice", "remove one of them")

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The views the model reads and which of their features, in the order of the inputs."""
        whole = [item.select(*(f.name for f in item.served)) if isinstance(item, FeatureView) else item for item in self.inputs]
        return tuple(item for item in whole if isinstance(item, Selection))

    @property
    def requests(self) -> tuple[Request, ...]:
        """The values that come with a request."""
        return tuple(item for item in self.inputs if isinstance(item, Request))

    @property
    def views(self) -> tuple[FeatureView, ...]:
        """The views read, each once."""
        return tuple(dict.fromkeys(selection.view for selection in self.selections))

    @property
    def input_names(self) -> list[str]:
        """Columns of the model's matrix: `<view>__<feature>` of the selections in order, then the Request names."""
        names = [f"{selection.view.name}__{name}" for selection in self.selections for name in selection.names]
        return names + [request.name for request in self.requests]

    @property
    def request_fields(self) -> list[str]:
        """What a request must give: the entities of the views, then the Request values, each once."""
        return list(dict.fromkeys([view.key.name for view in self.views] + [request.name for request in self.requests]))

    def _need_field(self, label: str, name: str) -> None:
        if name not in self.on.fields:
            self._fail(
                label, f"event {self.on.name!r} has no field {name!r}", f"add it to the event, or name one of {', '.join(self.on.fields)}"
            )

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Model {self.name!r}: {message}", where=self.where, field=name, mend=mend)


@dataclass(frozen=True, eq=False)
class Recording:
    """Recorded events that can be replayed. `events(start_ms, end_ms)` yields (known_ms, event name, data) in order of known_ms.

    known_ms is when the event became known to the outside; `start`/`end` (ISO dates) bound the whole recording.
    """

    name: str
    events: Callable[[int, int], Iterator[tuple[int, str, dict[str, Any]]]]
    start: str
    end: str
    where: str = field(default_factory=_where, repr=False)


def _base_type(kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        rest = [part for part in get_args(kind) if part is not NoneType]
        return rest[0] if len(rest) == 1 else kind
    return kind


def _duration(owner: Any, name: str, text: str) -> int:
    try:
        return parse_ms(text)
    except ValueError as error:
        raise DeclarationError(
            f"{type(owner).__name__} {owner.name!r}: {error}", where=owner.where, field=name, mend='write for example "5m", "24h" or "7d"'
        ) from None
