"""Declarations as data, and back: what the catalogue holds, so that a definition outlives the Python file that declared it.

    written = write_view(view)                # msgspec structs, which JSON holds
    view = read_view(written, read_event(event))

Reading checks as declaring does. What is only Python (a model's pipeline) is not written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.events import Event
from tidemill.declarations.views import Entity, FeatureView

_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_SHARED = {"column", "windows", "name"}


class WrittenEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event. `fields`: name -> `int`, `float | None` and so on; the rest as in Event."""

    name: str
    fields: dict[str, str]
    time: str
    topic: str
    partitions: int
    id: str | None = None
    future: str = "1h"
    extra: str = "keep"


class WrittenFeature(msgspec.Struct, frozen=True, omit_defaults=True):
    """An aggregate. `word`: the function that declares it; `arguments`: those of this kind alone, such as `n` of last_k."""

    word: str
    column: str | None = None
    windows: tuple[str, ...] | None = None
    name: str | None = None
    arguments: dict[str, Any] = {}


class WrittenView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A view. `source`: the event's name; `entity` and `field`: the key's name in requests and in the event; the rest as in FeatureView."""

    name: str
    source: str
    entity: str
    field: str
    features: tuple[WrittenFeature, ...]
    windows: tuple[str, ...]
    partitions: int
    tile: str = "5m"
    tiles: dict[str, str] = {}
    ttl: str | None = None
    ahead: str | None = None
    dedupe: int = 8


def write_event(event: Event) -> WrittenEvent:
    """An event as data."""
    fields = {name: event.base_type(name).__name__ + (" | None" if event.nullable(name) else "") for name in event.fields}
    return WrittenEvent(event.name, fields, event.time, event.topic, event.partitions, event.id, event.future)


def read_event(written: WrittenEvent) -> Event:
    """The event. Raises DeclarationError."""
    fields = {name: _type_of(kind) for name, kind in written.fields.items()}
    return Event(
        written.name, fields, written.time, topic=written.topic, partitions=written.partitions, id=written.id, future=written.future
    )  # fmt: skip


def write_view(view: FeatureView) -> WrittenView:
    """A view as data; its event by name."""
    return WrittenView(
        view.name, view.source.name, view.key.name, view.key.field, tuple(map(_write_feature, view.features)), tuple(view.windows),
        view.partitions, view.tile, dict(view.tiles), view.ttl, view.ahead, view.dedupe,
    )  # fmt: skip


def read_view(written: WrittenView, source: Event) -> FeatureView:
    """The view of an event. Raises DeclarationError."""
    return FeatureView(
        written.name, source, Entity(written.entity, field=written.field), [_read_feature(feature) for feature in written.features],
        windows=written.windows, tile=written.tile, tiles=written.tiles, ttl=written.ttl, ahead=written.ahead, dedupe=written.dedupe,
        partitions=written.partitions,
    )  # fmt: skip


def _type_of(text: str) -> Any:
    kind = _TYPES[text.removesuffix(" | None")]
    return kind | None if text.endswith(" | None") else kind


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
        if hasattr(child, "word"):
            yield child
        yield from _below(child)
