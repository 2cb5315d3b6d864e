"""Generated projects: one event, some views of it, and a stream of events with all that goes wrong in streams."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

import tidemill as tm
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.project import Project

START_MS = 1_700_000_000_000 - 1_700_000_000_000 % 86_400_000
MINUTE = 60_000
NUMBERS = ("x", "y", "ok")
CONDITIONS = ("x > 1", "kind == 'a'", "not ok", "x >= y", "kind != 'b' and x < 3", "y * 2 - x <= 1.5", "ok or x == 1", "-x < 0.5")
FIELDS: dict[str, Any] = {"x": int | None, "y": float | None, "ok": bool | None, "kind": str | None}


class Told(NamedTuple):
    """One event as it is published: its fields, and when it became known."""

    known_ms: int
    time_ms: int
    id: str | None
    data: dict[str, Any]


class Question(NamedTuple):
    """After how many events, and for which entity and moment, features are asked for."""

    after: int
    entity: str | int
    at_ms: int


@dataclass(repr=False)
class Generated:
    """A project with a stream and questions. `source`: the project as a person would write it; `aside`: fields that the archive's table
    has no column for, and fields that the first `undeclared` events carried before they were declared."""

    source: str
    project: Project
    event: Event
    stream: list[Told]
    questions: list[Question]
    no_column: frozenset[str]
    later: frozenset[str]
    undeclared: int

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))

    def __repr__(self) -> str:
        """The project and its stream, as text for a person."""
        told = "\n".join(f"  known {told.known_ms - START_MS} ms: {told.data} id={told.id}" for told in self.stream)
        return f"\n{self.source}\n{told}\n  no column: {set(self.no_column)}, later: {set(self.later)} for {self.undeclared}\n"


@st.composite
def columns_of(draw: st.DrawFn, word: str) -> str:
    """A column that an aggregate takes."""
    column: str = draw(st.sampled_from((*NUMBERS, *CONDITIONS, *(("kind",) if word in ("count", "age", "distinct") else ()))))
    return column


@st.composite
def aggregates(draw: st.DrawFn, windows: list[str], i: int) -> tuple[str, Aggregation]:
    """An aggregate, and its text."""
    word = draw(st.sampled_from(["count", "sum", "mean", "min", "max", "std", "rate", "first", "last", "age", "last_k", "distinct"]))
    arguments: list[Any] = []
    if word == "rate":
        arguments = [draw(st.sampled_from(CONDITIONS))]
    elif word not in ("count", "age") or draw(st.booleans()):
        arguments = [draw(columns_of(word))]
    if word == "last_k":
        arguments.append(draw(st.integers(1, 3)))
    keywords: dict[str, Any] = {"name": f"f{i}"}
    if word in ("first", "last", "age", "last_k") and ("lifetime" not in windows or draw(st.booleans())):
        keywords["windows"] = windows
    written = ", ".join([*map(repr, arguments), *(f"{name}={value!r}" for name, value in keywords.items())])
    return f"tm.{word}({written})", getattr(tm, word)(*arguments, **keywords)


@st.composite
def views(draw: st.DrawFn, event: Event, i: int) -> tuple[str, FeatureView]:
    """A view, and its text."""
    tile = draw(st.sampled_from(("1m", "5m", "10m")))
    ahead = draw(st.sampled_from((None, None, "10m", "1h")))
    lengths = ["lifetime"] if ahead is None else []
    windows = draw(st.lists(st.sampled_from(("10m", "30m", "3h", "1d", *lengths)), min_size=1, max_size=3, unique=True))
    made = draw(st.integers(1, 4))
    features = [draw(aggregates(windows, n)) for n in range(made)]
    arguments: dict[str, Any] = {"windows": windows, "tile": tile, "dedupe": draw(st.sampled_from((0, 1, 2, 8)))}
    if ahead is not None:
        arguments["ahead"] = ahead
    if "3h" in windows and draw(st.booleans()):
        arguments["tiles"] = {"3h": "1h"}
    if draw(st.booleans()):
        arguments["ttl"] = draw(st.sampled_from(("5m", "2h")))
    entity = draw(st.sampled_from(("shop", "number")))
    view = FeatureView(f"view{i}", event, entity, [feature for _, feature in features], partitions=draw(st.integers(1, 2)), **arguments)
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    return f"FeatureView('view{i}', event, {entity!r}, [{', '.join(text for text, _ in features)}], {written})", view


_NUMBERS = st.integers(-3, 5) | st.sampled_from((10**9, -(2**63), 2**63 - 1))
_FLOATS = st.integers(-3, 5).map(float) | st.sampled_from((0.1, -0.0, 2.5, 1e9 + 0.1, 1e15, -1e-300))


_OFF_MS = st.sampled_from((0, 0, 0, -1, -MINUTE, -7 * MINUTE, -11 * MINUTE, -45 * MINUTE, -4 * 60 * MINUTE, -2 * 1440 * MINUTE, 1, 4 * MINUTE, 20 * MINUTE, 59 * MINUTE, 61 * MINUTE))  # fmt: skip
_SHOPS, _KEYS = st.sampled_from(("n", "n", "n", "ö s")), st.sampled_from((7, 7, -1, None))
_VALUES = [(name, st.none() | values) for name, values in (("x", _NUMBERS), ("y", _FLOATS), ("ok", st.booleans()), ("kind", st.sampled_from(("a", "b", ""))))]  # fmt: skip
_WHETHER = st.booleans()
_IDS, _FIELD_IDS = st.none() | st.integers(1, 5).map(str), st.integers(1, 9).map(str)


@st.composite
def told(draw: st.DrawFn, known_ms: int, text_time: bool, fielded: bool) -> Told:
    """One event: mostly on time, sometimes late by minutes or hours, or ahead."""
    time_ms = known_ms + draw(_OFF_MS)
    data: dict[str, Any] = {"shop": draw(_SHOPS), "number": draw(_KEYS)}
    data["at"] = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat() if text_time else time_ms
    for name, values in _VALUES:
        value = draw(values)
        if value is not None or draw(_WHETHER):
            data[name] = value
    event_id = draw(_FIELD_IDS if fielded else _IDS)
    if fielded:
        data["id"] = event_id
    return Told(known_ms, time_ms, event_id, data)


_MOMENTS = st.sampled_from((0, 1, -1, 5 * MINUTE, 29 * MINUTE, -20 * MINUTE, 3 * 60 * MINUTE, -3 * 60 * MINUTE, 1440 * MINUTE))
_HIDDEN, _UNDECLARED = st.frozensets(st.sampled_from(sorted(FIELDS)), max_size=2), st.integers(0, 3)
_VIEWS = st.sampled_from((1, 1, 2))
_STEPS = {few: st.sampled_from((few, 1, 1_000, MINUTE, 4 * MINUTE, 9 * MINUTE, 2 * 60 * MINUTE, 1440 * MINUTE)) for few in (0, 1)}


@st.composite
def generated(draw: st.DrawFn) -> Generated:
    """A project, a stream and questions."""
    text_time, fielded, partitions = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from((1, 3)))
    fields = {"at": str if text_time else int, "shop": str, "number": int | None, **FIELDS, **({"id": str} if fielded else {})}
    event = Event("told", fields, time="at", id="id" if fielded else None, partitions=partitions)
    found = [draw(views(event, i)) for i in range(draw(_VIEWS))]
    known_ms, stream = START_MS, []
    gaps = _STEPS[0 if partitions == 1 else 1]
    for _ in range(draw(st.integers(1, 12))):
        known_ms += draw(gaps)
        stream.append(draw(told(known_ms, text_time, fielded)))
    asked_about = [key for told in stream for key in (told.data["shop"], told.data["number"]) if key is not None]
    entities = st.sampled_from((*asked_about, "nobody"))
    questions = []
    for _ in range(6):
        after = draw(st.just(len(stream)) | st.integers(1, len(stream)))
        questions.append(Question(after, draw(entities), stream[after - 1].known_ms + draw(_MOMENTS)))
    project = Project("generated", {"told": event}, {view.name: view for _, view in found})
    source = f"event = Event('told', {fields}, time='at', id={event.id!r})\n" + "\n".join(text for text, _ in found)
    return Generated(source, project, event, stream, questions, draw(_HIDDEN), draw(_HIDDEN), draw(_UNDECLARED))
