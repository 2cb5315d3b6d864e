"""Declarations as data, and back: what the catalogue holds, so that a definition outlives the Python file that declared it.

    written = write_view(view)                # msgspec structs, which JSON holds
    view = read_view(written, read_event(event))

Reading checks as declaring does. What is only Python (a model's pipeline) is not written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, cast

import msgspec

from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.checks import base_type
from tidemill.declarations.contents import Tensor, Words
from tidemill.declarations.entities import Entity
from tidemill.declarations.events import Event, Former
from tidemill.declarations.fields import REQUIRED, Field
from tidemill.declarations.models import Model, Outcome, Request
from tidemill.declarations.topics import Type
from tidemill.declarations.views import FeatureView, Selection
from tidemill.errors import ProjectError
from tidemill.records import Integer, Milliseconds, Natural, Scalar

_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_SHARED = {"column", "windows", "name"}


class WrittenPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Root of the structs that a record of the catalogue is made of."""


class WrittenForm(WrittenPart, frozen=True):
    """How a publisher writes a field. `path`: the keys that lead to it (None: its name); the rest as in Field."""

    path: tuple[str, ...] | None = None
    default: Scalar | msgspec.UnsetType = msgspec.UNSET
    lenient: bool = False
    unit: Literal["d", "s", "ms", "us", "ns"] | None = None

    def __str__(self) -> str:
        """As it is declared."""
        said = [] if self.path is None else [f"path={list(self.path)}"]
        said += [f"default={self.default!r}"] * (self.default is not msgspec.UNSET) + ["lenient=True"] * self.lenient
        return ", ".join([*said, f"unit={self.unit!r}"] if self.unit else said)


class WrittenType(WrittenPart, frozen=True):
    """By what an event is known on its topic, as in Type. `field`: the keys that lead to it."""

    value: str | Natural
    header: str | None = None
    field: tuple[str, ...] | None = None


class WrittenFormer(WrittenPart, frozen=True):
    """By which rules an event was taken before, until a moment (see `Event.former`). `fields`, `forms`: time and id, where they are not declared
    any more."""

    time: str
    until: Milliseconds
    id: str | None = None
    future: str = "1h"
    extra: Literal["keep", "refuse"] = "keep"
    earliest: str = "1971-01-01"
    fields: dict[str, str] = {}
    forms: dict[str, WrittenForm] = {}


class WrittenEvent(WrittenPart, frozen=True):
    """An event. `fields`: name -> `int`, `float | None` and so on; the rest as in Event."""

    name: str
    fields: dict[str, str]
    time: str
    topic: str
    partitions: Natural
    id: str | None = None
    future: str = "1h"
    extra: Literal["keep", "refuse"] = "keep"
    description: str = ""
    strict: dict[str, Milliseconds] = {}
    earliest: str = "1971-01-01"
    empty: Literal["pass", "refuse"] = "pass"
    forms: dict[str, WrittenForm] = {}
    type: WrittenType | None = None
    envelope: Literal["debezium"] | None = None
    deletes: Literal["pass", "keep"] = "pass"
    former: WrittenFormer | None = None


class WrittenFeature(WrittenPart, frozen=True):
    """An aggregate. `word`: the function that declares it; `arguments`: those of this kind alone, such as `n` of last_k."""

    word: str
    column: str | None = None
    windows: tuple[str, ...] | None = None
    name: str | None = None
    arguments: dict[str, Any] = {}

    def __str__(self) -> str:
        """As it is declared."""
        named = [("windows", None if self.windows is None else list(self.windows)), ("name", self.name), *self.arguments.items()]
        said = [f'"{self.column}"'] * (self.column is not None) + [f"{name}={value!r}" for name, value in named if value is not None]
        return f"{self.word}({', '.join(said)})"


class WrittenView(WrittenPart, frozen=True):
    """A view. `source`: the event's name; `entity`, `field` and `entity_description`: the key's name in requests, its name in the event, and
    its description; the rest as in FeatureView."""

    name: str
    source: str
    entity: str
    field: str | tuple[str, ...]
    features: tuple[WrittenFeature, ...]
    windows: tuple[str, ...]
    partitions: Natural
    where: str | None = None
    tile: str = "5m"
    tiles: dict[str, str] = {}
    ttl: str | None = None
    ahead: str | None = None
    dedupe: Natural | str = 8
    description: str = ""
    entity_description: str = ""
    erase: str | None = None


class WrittenInput(WrittenPart, frozen=True):
    """An input of a model: some features of a view, or a value of the request, whose `type` is named as in an event, or is "words", or "tensor" of
    a `shape`."""

    view: str | None = None
    features: tuple[str, ...] = ()
    request: str | None = None
    type: str | None = None
    shape: tuple[Natural, ...] = ()

    def each(self) -> list[str]:
        """Its features as requests name them, or the value of the request with its type."""
        return (
            [f"{self.view}:{name}" for name in self.features]
            if self.view
            else [f"{self.request} of the request, {self.type}" + (f" {list(self.shape)}" if self.shape else "")]
        )


class WrittenOutcome(WrittenPart, frozen=True):
    """An outcome. `source`: the event's name; the rest as in Outcome."""

    source: str
    value: str
    subject: str
    within: str
    absent: float | str | None = None
    classes: tuple[str | Integer, ...] = ()


class WrittenModel(WrittenPart, frozen=True):
    """A model. `on`: the event's name; the rest as in Model. Its pipeline is only in Python."""

    name: str
    on: str
    at: str
    subject: str
    inputs: tuple[WrittenInput, ...]
    outcome: WrittenOutcome
    description: str = ""
    on_missing: Literal["predict", "refuse"] = "predict"


def write_event(event: Event) -> WrittenEvent:
    """An event as data."""
    fields, forms = _write_fields(event)
    return WrittenEvent(
        event.name, fields, event.time, event.topic, event.partitions, event.id, event.future, event.extra, event.description,
        dict(event.strict), event.earliest, event.empty, forms,
        None if event.type is None else WrittenType(event.type.value, event.type.header, event.type.keys or None), event.envelope, event.deletes,
        event.former and _write_former(event, event.former),
    )  # fmt: skip


def _write_fields(event: Event) -> tuple[dict[str, str], dict[str, WrittenForm]]:
    fields = {name: event.base_type(name).__name__ + (" | None" if event.nullable(name) else "") for name in event.fields}
    return fields, {name: _write_form(form) for name, form in event.forms.items()}


def _write_former(event: Event, former: Former) -> WrittenFormer:
    was, (fields, forms) = former.event, _write_fields(former.event)
    return WrittenFormer(
        was.time, former.until_ms, was.id, was.future, was.extra, was.earliest,
        {name: kind for name, kind in fields.items() if name not in event.fields},
        {name: form for name, form in forms.items() if name not in event.fields},
    )  # fmt: skip


def read_event(written: WrittenEvent) -> Event:
    """The event. Raises DeclarationError."""
    event = _read_event(written)
    event.__dict__["former"] = written.former and _read_former(written, written.former)
    return event


def _read_former(written: WrittenEvent, former: WrittenFormer) -> Former:
    """Time and id of today may be absent from what was published before."""
    fields = {
        name: f"{kind.removesuffix(' | None')} | None"
        if name in (written.time, written.id) and name not in (former.time, former.id)
        else kind
        for name, kind in (written.fields | former.fields).items()
    }
    fields[former.time] = fields[former.time].removesuffix(" | None")  # a version of a view may read it still
    made = msgspec.structs.replace(
        written, fields=fields, forms=written.forms | former.forms, time=former.time, id=former.id, future=former.future,
        extra=former.extra, earliest=former.earliest,
    )  # fmt: skip
    return Former(_read_event(made), former.until)


def _read_event(written: WrittenEvent) -> Event:
    fields = {name: _type_of(kind) for name, kind in written.fields.items()}
    fields |= {name: _read_form(fields[name], form) for name, form in written.forms.items()}
    event = Event(
        written.name, fields, written.time, topic=written.topic, partitions=written.partitions, id=written.id, future=written.future,
        extra=written.extra, description=written.description, earliest=written.earliest, empty=written.empty,
        type=None if written.type is None else Type(written.type.value, header=written.type.header, field=written.type.field),
        envelope=written.envelope, deletes=written.deletes,
    )  # fmt: skip
    event.__dict__["strict"] = written.strict
    return event


def write_view(view: FeatureView) -> WrittenView:
    """A view as data; its event by name."""
    return WrittenView(
        view.name, view.source.name, view.key.name, cast("str | tuple[str, ...]", view.key.field), tuple(map(_write_feature, view.features)), tuple(view.windows),
        view.partitions, view.where, view.tile, dict(view.tiles), view.ttl, view.ahead, view.dedupe, view.description, view.key.description,
        view.erase,
    )  # fmt: skip


def read_view(written: WrittenView, source: Event) -> FeatureView:
    """The view of an event. Raises DeclarationError."""
    entity = Entity(written.entity, field=written.field, description=written.entity_description)
    return FeatureView(
        written.name, source, entity, [_read_feature(feature) for feature in written.features],
        where=written.where, erase=written.erase, windows=written.windows, tile=written.tile, tiles=written.tiles, ttl=written.ttl, ahead=written.ahead, dedupe=written.dedupe,
        partitions=written.partitions, description=written.description,
    )  # fmt: skip


def write_model(model: Model) -> WrittenModel:
    """A model as data; its events and views by name."""
    outcome = model.outcome
    return WrittenModel(
        model.name, model.on.name, model.at, model.subject, tuple(map(_write_input, model.inputs)),
        WrittenOutcome(outcome.source.name, outcome.value, outcome.subject, outcome.within, outcome.absent, tuple(outcome.classes)), model.description,
        model.on_missing,
    )  # fmt: skip


def read_model(written: WrittenModel, events: Mapping[str, Event], views: Mapping[str, FeatureView]) -> Model:
    """The model over these events and views. It cannot be trained: making its pipeline raises ProjectError. Raises DeclarationError."""
    outcome = written.outcome
    return Model(
        written.name, events[written.on], written.at, written.subject, [_read_input(item, views) for item in written.inputs],
        Outcome(events[outcome.source], outcome.value, outcome.subject, within=outcome.within, absent=outcome.absent, classes=outcome.classes), partial(_no_pipeline, written.name),
        on_missing=written.on_missing, description=written.description,
    )  # fmt: skip


def _write_input(item: FeatureView | Selection | Request) -> WrittenInput:
    if isinstance(item, Tensor):
        return WrittenInput(request=item.name, type=item.kind, shape=tuple(item.shape))
    if isinstance(item, Words):
        return WrittenInput(request=item.name, type=item.kind)
    if isinstance(item, Request):
        return WrittenInput(request=item.name, type=item.type.__name__)
    selection = item if isinstance(item, Selection) else item.select(*(feature.name for feature in item.served))
    return WrittenInput(selection.view.plain_name, selection.names)


def _read_input(written: WrittenInput, views: Mapping[str, FeatureView]) -> Selection | Request:
    if written.view is not None:
        return views[written.view].select(*written.features)
    name = written.request or ""
    if written.type == "tensor":
        return Tensor(name, shape=written.shape)
    return Words(name) if written.type == "words" else Request(name, _TYPES[written.type or ""])


def _no_pipeline(model: str) -> Any:
    raise ProjectError(f"the catalogue has no pipeline of model {model!r}", mend="train with the project that declares it")


def _type_of(text: str) -> Any:
    kind = _TYPES[text.removesuffix(" | None")]
    return kind | None if text.endswith(" | None") else kind


def _write_form(form: Field) -> WrittenForm:
    return WrittenForm(form.keys, form.default if form.has_default else msgspec.UNSET, form.lenient, form.unit)


def _read_form(kind: Any, written: WrittenForm) -> Field:
    default = REQUIRED if written.default is msgspec.UNSET else written.default
    if base_type(kind) is float and isinstance(default, int):
        default = float(default)  # JSON has one kind of number
    return Field(kind, path=written.path, default=default, lenient=written.lenient, unit=written.unit)


def _write_feature(aggregation: Aggregation) -> WrittenFeature:
    own = {field.name: getattr(aggregation, field.name) for field in dataclasses.fields(aggregation) if field.name not in _SHARED}
    return WrittenFeature(aggregation.word, aggregation.column, aggregation.windows, aggregation.name, own)


def _read_feature(written: WrittenFeature) -> Aggregation:
    kind = aggregations()[written.word]
    return kind(column=written.column, windows=written.windows, name=written.name, **written.arguments)


def aggregations() -> Mapping[str, type[Aggregation]]:
    """Every aggregation that is imported, by its word."""
    return {kind.word: kind for kind in _below(Aggregation)}  # type: ignore[type-abstract]


def _below(kind: type[Aggregation]) -> Iterator[type[Aggregation]]:
    for child in kind.__subclasses__():
        if "word" in vars(child):  # one that inherits its word is what another becomes over a text field
            yield child
        yield from _below(child)
