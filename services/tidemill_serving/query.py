"""Parsing and checking a feature request, and resolving its names. Pure: no store, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from tidemill.declarations import FeatureView, Model
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, NotFound, UnknownFeature, UnknownView
from tidemill.kernel.keys import asked_key
from tidemill.runtime.routes import decode_body
from tidemill.timestamps import parse_time_ms

MAX_ROWS = 5_000
"""The most rows of entities times views in one request."""


class FeatureRequest(msgspec.Struct):
    """The body of POST /get-online-features. `entities`: lists of equal length by name; the i-th values are row i.

    Either `features`, a list of "view:feature" or "view@v2:feature", or `feature_service`, a model's name. `as_of`: the moment at which windows are merged
    (RFC 3339 or epoch ms), by default now.
    """

    entities: dict[str, Any]
    features: list[str] | None = None
    feature_service: str | None = None
    full_feature_names: bool = False
    as_of: int | str | None = None


class UnknownFeatureService(NotFound):
    """No model of that name is declared."""

    kind = "feature service"


class FeatureColumn(NamedTuple):
    """One column of an answer: its name, the index of its view in the plan, and its index in the view."""

    name: str
    view: int
    feature: int


class Plan(NamedTuple):
    """The views to read, the names of their entities, each once, and the columns to answer, in the order asked for."""

    views: tuple[FeatureView, ...]
    join_keys: tuple[str, ...]
    columns: tuple[FeatureColumn, ...]


class Query(NamedTuple):
    """A request that can be answered: `keys[i][row]` is the entity key of view i (None: a null entity)."""

    plan: Plan
    rows: int
    entities: dict[str, list[Any]]
    keys: list[list[bytes | None]]
    time_ms: int


_decode = msgspec.json.Decoder(FeatureRequest).decode


class QueryParser:
    """Parses requests against a project's views and models."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._views = project.named_views
        self._services = {name: _references(model) for name, model in project.models.items()}
        self._plan_of_features = lru_cache(maxsize=256)(self._plan)  # names that cannot be resolved raise and are not cached

    def parse(self, body: bytes, now_ms: int) -> Query:
        """A body's query. Raises BadRequest and NotFound, naming the field."""
        request = decode_body(_decode, body, 'send {"entities": {"name": [...]}, "features": ["view:feature", ...]}')
        if request.feature_service is not None:
            if request.feature_service not in self._services:
                raise UnknownFeatureService(request.feature_service, list(self._services))
            references = self._services[request.feature_service]
        elif request.features:
            references = tuple(request.features)
        else:
            raise BadRequest("features is missing or empty", mend='give "features": ["view:feature", ...] or "feature_service": a model')
        plan = self._plan_of_features(references, request.full_feature_names)
        rows = _check_lists(request.entities, plan)
        keys = [_keys(view.key.names, request.entities) for view in plan.views]
        try:
            time_ms = now_ms if request.as_of is None else parse_time_ms(request.as_of)
        except ValueError as error:
            raise BadRequest(f"as_of: {error}") from None
        return Query(plan, rows, request.entities, keys, time_ms)

    def _plan(self, references: tuple[str, ...], full_names: bool) -> Plan:
        views: dict[str, FeatureView] = {}
        columns: dict[str, FeatureColumn] = {}
        for reference in references:
            view_name, colon, feature = reference.partition(":")
            if not colon:
                raise BadRequest(f"features: {reference!r:.200} is not view:feature", mend='write "view:feature"')
            view = self._views.get(view_name)
            if view is None:
                raise UnknownView(view_name, list(self._project.views))
            names = [item.name for item in view.served]
            if feature not in names:
                raise UnknownFeature(f"{view_name}:{feature}", names)
            views.setdefault(view.name, view)
            name = f"{view_name.removesuffix('@latest')}__{feature}" if full_names else feature
            if name in columns:
                raise BadRequest(f"features: two columns would be called {name!r}", mend="set full_feature_names, or remove one of them")
            columns[name] = FeatureColumn(name, list(views).index(view.name), names.index(feature))
        return Plan(
            tuple(views.values()), tuple(dict.fromkeys(name for view in views.values() for name in view.key.names)), tuple(columns.values())
        )


def _references(model: Model) -> tuple[str, ...]:
    return tuple(f"{selection.view.name}:{name}" for selection in model.selections for name in selection.names)


def _check_lists(entities: dict[str, Any], plan: Plan) -> int:
    """The number of rows, when all lists are lists of the same length and the join keys are among them."""
    for name in plan.join_keys:
        if name not in entities:
            raise BadRequest(f"entities.{name} is missing", mend=f"give a list of values for each of {', '.join(plan.join_keys)}")
    for name, values in entities.items():
        if not isinstance(values, list):
            raise BadRequest(f"entities.{name:.200} is not a list", mend="give a list with one value per row")
        if not values:
            raise BadRequest(f"entities.{name:.200} is empty", mend="give at least one row")
    lengths = {name: len(values) for name, values in entities.items()}
    rows = lengths[plan.join_keys[0]]
    for name, length in lengths.items():
        if length != rows:
            raise BadRequest(
                f"entities.{name:.200} has {length} values, entities.{plan.join_keys[0]} has {rows}", mend="give lists of equal length"
            )
    if rows * len(plan.views) > MAX_ROWS:
        raise BadRequest(f"{rows} rows of {len(plan.views)} views are more than {MAX_ROWS}", mend="ask in several requests")
    return rows


def _keys(names: Sequence[str], entities: Mapping[str, Sequence[Any]]) -> list[bytes | None]:
    keys: list[bytes | None] = []
    for row, values in enumerate(zip(*(entities[name] for name in names), strict=True)):
        try:
            keys.append(asked_key(values))
        except TypeError as error:
            raise BadRequest(f"entities.{', '.join(names)}[{row}]: {error}") from None
    return keys
