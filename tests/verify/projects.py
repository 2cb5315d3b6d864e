"""Generated projects: one event, some views of it, changes of both, and a stream of events with all that goes wrong in streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

import tidemill as tm
from tidemill.declarations import Entity, Event, FeatureView, Model
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.project import Project

START_MS = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000
MINUTE = 60_000
NUMBERS = ("x", "y", "ok")
NEWER = (
    "y / x > 0.5",
    "ok or 1 / x < 1",
    "kind in ['a', '']",
    "x not in (1, -2)",
    "abs(x - y) <= 1",
    "0 < x <= 3",
    "hour(at) < 12",
    "day(at) == 14 and ok",
)
CONDITIONS = ("x > 1", "kind == 'a'", "not ok", "x >= y", "kind != 'b' and x < 3", "y * 2 - x <= 1.5", "ok or x == 1", "-x < 0.5", *NEWER)
FIELDS: dict[str, Any] = {"x": int | None, "y": float | None, "ok": bool | None, "kind": str | None}
LATER: dict[str, Any] = {"n": int | None, "m": float | None, "on": bool | None, "sort": str | None}
"""Fields that a change declares. Events may carry them before."""
OF_LATER = {"n": ("n", "n > 1", "n < x"), "m": ("m", "m <= 1"), "on": ("on", "not on"), "sort": ("sort == 'a'", "sort != 'b' or x > 1")}
"""Columns over each of them."""


KEYS: dict[str, str | Entity] = {"shop": "shop", "number": "number", "both": Entity("both", field=["shop", "number"])}
"""The entities that a view may have."""


class Told(NamedTuple):
    """One event as it is published: its fields, and when it became known."""

    known_ms: int
    time_ms: int
    id: str | None
    data: dict[str, Any]


class Question(NamedTuple):
    """After how many events, and for which entity and moment, features are asked for."""

    after: int
    entity: str | int | tuple[str, int]
    at_ms: int

    @property
    def key(self) -> str:
        """By what the views that it asks have their entities: KEYS."""
        return {str: "shop", int: "number"}.get(type(self.entity), "both")

    @property
    def text(self) -> str:
        """The entity as text, as the documents say."""
        if not isinstance(self.entity, tuple):
            return str(self.entity)
        return json.dumps([*map(str, self.entity)], ensure_ascii=False, separators=(",", ":"))


class Feature(NamedTuple):
    """An aggregate as it is written."""

    word: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def declared(self) -> Aggregation:
        """The aggregate."""
        made: Aggregation = getattr(tm, self.word)(*self.arguments, **self.keywords)
        return made

    def __str__(self) -> str:
        """Its text."""
        written = ", ".join([*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.keywords.items())])
        return f"tm.{self.word}({written})"


class View(NamedTuple):
    """A view as it is written. `entity`: one of KEYS."""

    name: str
    entity: str
    features: tuple[Feature, ...]
    arguments: dict[str, Any]

    def declared(self, event: Event) -> FeatureView:
        """The view. Raises DeclarationError."""
        return FeatureView(self.name, event, KEYS[self.entity], [feature.declared for feature in self.features], **self.arguments)

    def __str__(self) -> str:
        """Its text."""
        written = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        key = "Entity('both', field=['shop', 'number'])" if self.entity == "both" else repr(self.entity)
        return f"{self.name} = FeatureView({self.name!r}, event, {key}, [{', '.join(map(str, self.features))}], {written})"


class Written(NamedTuple):
    """A project as a person would write it. `fields`, `id`, `partitions`: of its event."""

    fields: dict[str, Any]
    id: str | None
    partitions: int
    views: Mapping[str, View]

    def declared(self) -> Project:
        """The project. Raises DeclarationError."""
        event = Event("told", self.fields, time="at", id=self.id, partitions=self.partitions)
        return Project("generated", {"told": event}, {name: view.declared(event) for name, view in self.views.items()})

    def lines(self, topic: str = "told") -> list[str]:
        """Its text."""
        fields = ", ".join(f"{name!r}: {kind.__name__ if isinstance(kind, type) else kind}" for name, kind in self.fields.items())
        arguments = f"time='at', id={self.id!r}, partitions={self.partitions}" + (f", topic={topic!r}" if topic != "told" else "")
        return [f"event = Event('told', {{{fields}}}, {arguments})", *map(str, self.views.values())]


class Change(NamedTuple):
    """The project after so many events."""

    after: int
    project: Project
    written: Written | None = None


@dataclass(repr=False)
class Generated:
    """A project with a stream, changes and questions. `no_column`, `later`: fields that the archive's table has no column for, and fields that
    the first `undeclared` events carried before they were declared; only where nothing changes."""

    project: Project
    stream: list[Told]
    questions: list[Question]
    written: Written | None = None
    changes: list[Change] = field(default_factory=list)
    no_column: frozenset[str] = frozenset()
    later: frozenset[str] = frozenset()
    undeclared: int = 0

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))

    def __repr__(self) -> str:
        """The project, its stream and its changes, as text for a person."""
        return "\n" + "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        lines = _lines(self.written, self.project)
        yield from lines
        for number, told in enumerate(self.stream):
            for change in self.changes:
                if change.after == number:
                    changed = _lines(change.written, change.project)
                    yield "  apply:"
                    yield from (f"  - {line}" for line in lines if line not in changed)
                    yield from (f"  + {line}" for line in changed if line not in lines)
                    lines = changed
            yield f"  known {told.known_ms - START_MS} ms: {told.data} id={told.id}"
        if self.no_column or self.later:
            yield f"  no column: {set(self.no_column)}, later: {set(self.later)} for {self.undeclared}"


def _lines(written: Written | None, project: Project) -> list[str]:
    return [*(written.lines() if written else ()), *_models(project)]


def _models(project: Project) -> Iterator[str]:
    for model in project.models.values():
        outcome = model.outcome
        said = f"{outcome.value!r}, {outcome.subject!r}, within={outcome.within!r}, absent={outcome.absent!r}"
        yield f"Model({model.name!r}, event, {model.at!r}, {model.subject!r}, {model.input_names}, Outcome(event, {said}))"


WORDS = ("count", "sum", "mean", "min", "max", "std", "rate", "first", "last", "age", "last_k", "distinct")
"""The aggregates that projects are generated with."""
TEXTS_TOO = ("count", "age", "distinct", "first", "last")
"""Those that take a text too."""

_ONE_OF_THREE = st.sampled_from((False, False, True))


@st.composite
def columns_of(draw: st.DrawFn, word: str) -> str:
    """A column that an aggregate takes."""
    column: str = draw(st.sampled_from((*NUMBERS, *CONDITIONS, *(("kind",) if word in TEXTS_TOO else ()))))
    return column


@st.composite
def aggregates(draw: st.DrawFn, windows: list[str], i: int, of: tuple[str, ...] = ()) -> Feature:
    """An aggregate. `of`: the columns that it may be of; empty: any."""
    word = draw(st.sampled_from(WORDS))
    arguments: list[Any] = []
    conditions = tuple(column for column in of if " " in column) if of else CONDITIONS
    if word == "rate" and conditions:
        arguments = [draw(st.sampled_from(conditions))]
    elif of:
        word, arguments = ("mean" if word == "rate" else word), [draw(st.sampled_from(of))]
    elif word not in ("count", "age") or draw(st.booleans()):
        arguments = [draw(columns_of(word))]
    if word == "last_k":
        arguments.append(draw(st.integers(1, 3)))
    keywords: dict[str, Any] = {"name": f"f{i}"}
    if word in ("first", "last", "age", "last_k") and ("lifetime" not in windows or draw(st.booleans())):
        keywords["windows"] = windows
    return Feature(word, tuple(arguments), keywords)


@st.composite
def views(draw: st.DrawFn, i: int) -> View:
    """A view."""
    tile = draw(st.sampled_from(("1m", "5m", "10m")))
    ahead = draw(st.sampled_from((None, None, "10m", "1h")))
    lengths = ["lifetime"] if ahead is None else []
    windows = draw(st.lists(st.sampled_from(("10m", "30m", "3h", "1d", *lengths)), min_size=1, max_size=3, unique=True))
    features = [draw(aggregates(windows, n)) for n in range(draw(st.integers(1, 4)))]
    arguments: dict[str, Any] = {"windows": windows, "tile": tile, "dedupe": draw(st.sampled_from((0, 1, 2, "3m", "30m")))}
    if ahead is not None:
        arguments["ahead"] = ahead
    if "3h" in windows and draw(st.booleans()):
        arguments["tiles"] = {"3h": "1h"}
    if draw(st.booleans()):
        arguments["ttl"] = draw(st.sampled_from(("5m", "2h")))
    if draw(_ONE_OF_THREE):
        arguments["where"] = draw(st.sampled_from(("ok", *CONDITIONS)))
    if draw(_ONE_OF_THREE):
        arguments["erase"] = draw(st.sampled_from(("ok", "x > 1 and ok", *CONDITIONS)))
    arguments["partitions"] = draw(st.integers(1, 2))
    return View(f"view{i}", draw(st.sampled_from(("shop", "number", "both"))), tuple(features), arguments)


_NUMBERS = st.integers(-3, 5) | st.sampled_from((10**9, -(2**53), 2**53))  # what a feature can hold; events with others are refused
_FLOATS = st.integers(-3, 5).map(float) | st.sampled_from((0.1, -0.0, 2.5, 1e9 + 0.1, 1e15, -1e-300))


_OFF_MS = st.sampled_from((0, 0, 0, -1, -MINUTE, -7 * MINUTE, -11 * MINUTE, -45 * MINUTE, -4 * 60 * MINUTE, -2 * 1440 * MINUTE, 1, 4 * MINUTE, 20 * MINUTE, 59 * MINUTE, 61 * MINUTE))  # fmt: skip
_SHOPS, _KEYS = st.sampled_from(("n", "n", "n", 'ö "s\\')), st.sampled_from((7, 7, -1, None))
_KINDS = st.sampled_from(("a", "b", "", "ö" * 256 + "a"))
_VALUES = [(name, st.none() | values) for name, values in (("x", _NUMBERS), ("y", _FLOATS), ("ok", st.booleans()), ("kind", _KINDS))]
_OF_LATER = {"n": _NUMBERS, "m": _FLOATS, "on": st.booleans(), "sort": _KINDS}
_ANYTHING = st.sampled_from(("much", 1, 2.5, True, [1], {"a": 1}))
_WHETHER = st.booleans()
_IDS, _FIELD_IDS = st.none() | st.integers(1, 5).map(str), st.integers(1, 9).map(str)


@st.composite
def told(draw: st.DrawFn, known_ms: int, written: Written, carried: Mapping[str, bool]) -> Told:
    """One event: mostly on time, sometimes late by minutes or hours, or ahead. `carried`: fields that are declared later, if ever, and whether
    they have been declared already."""
    time_ms = known_ms + draw(_OFF_MS)
    data: dict[str, Any] = {"shop": draw(_SHOPS), "number": draw(_KEYS)}
    is_text = written.fields["at"] is str
    data["at"] = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat() if is_text else time_ms
    for name, values in _VALUES:
        value = draw(values)
        if value is not None or draw(_WHETHER):
            data[name] = value
    for name, typed in carried.items():
        if written.fields.get(name) in (int, float, bool, str):
            data[name] = draw(_OF_LATER[name])
        elif draw(_WHETHER):
            data[name] = draw(st.none() | _OF_LATER[name] if typed or draw(_WHETHER) else _ANYTHING)
    event_id = draw(_IDS if written.id is None else _FIELD_IDS)
    if written.id is not None:
        data["id"] = event_id
    return Told(known_ms, time_ms, event_id, data)


_MOMENTS = st.sampled_from((0, 0, 1, 1, -1, 5 * MINUTE, 29 * MINUTE, -20 * MINUTE, 3 * 60 * MINUTE, -3 * 60 * MINUTE, 1440 * MINUTE))
_HIDDEN, _UNDECLARED = st.frozensets(st.sampled_from(sorted(FIELDS)), max_size=2), st.integers(0, 3)
_VIEWS = st.sampled_from((1, 1, 2))
STEPS = {few: st.sampled_from((few, 1, 1_000, MINUTE, 4 * MINUTE, 9 * MINUTE, 2 * 60 * MINUTE, 1440 * MINUTE)) for few in (0, 1)}


@st.composite
def projects(draw: st.DrawFn, partitions: tuple[int, ...] = (1, 3)) -> Written:
    """A project."""
    text_time, fielded = draw(st.booleans()), draw(st.booleans())
    fields = {"at": str if text_time else int, "shop": str, "number": int | None, **FIELDS, **({"id": str} if fielded else {})}
    made = [draw(views(i)) for i in range(draw(_VIEWS))]
    return Written(fields, "id" if fielded else None, draw(st.sampled_from(partitions)), {view.name: view for view in made})


@st.composite
def asked_of(draw: st.DrawFn, stream: list[Told], count: int) -> list[Question]:
    """Questions about the entities of a stream, at its end and on the way."""
    asked_about: list[str | int | tuple[str, int]] = [told.data["shop"] for told in stream]
    for shop, number in ((told.data["shop"], told.data["number"]) for told in stream if told.data["number"] is not None):
        asked_about += [number, (shop, number)]
    entities, found = st.sampled_from((*asked_about, "nobody")), []
    for _ in range(count):
        after = draw(st.just(len(stream)) | st.integers(1, len(stream)))
        found.append(Question(after, draw(entities), stream[after - 1].known_ms + draw(_MOMENTS)))
    return found


@st.composite
def generated(draw: st.DrawFn) -> Generated:
    """A project, a stream and questions."""
    written, known_ms, stream = draw(projects()), START_MS, list[Told]()
    gaps = STEPS[0 if written.partitions == 1 else 1]
    for _ in range(draw(st.integers(1, 12))):
        known_ms += draw(gaps)
        stream.append(draw(told(known_ms, written, {})))
    questions = draw(asked_of(stream, 6))
    return Generated(
        written.declared(), stream, questions, written, no_column=draw(_HIDDEN), later=draw(_HIDDEN), undeclared=draw(_UNDECLARED)
    )


def with_model(project: Project, model: Model) -> Project:
    """A project with a model."""
    return Project(project.name, project.events, project.views, {model.name: model})
