"""Generated projects that change while their stream goes on: fields, features, windows, keys, partitions and views."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

from hypothesis import strategies as st
from tests.verify.projects import (
    KEYS,
    LATER,
    OF_LATER,
    START_MS,
    STEPS,
    Change,
    Generated,
    Told,
    View,
    Written,
    aggregates,
    asked_of,
    projects,
    told,
    views,
)

from tidemill.errors import DeclarationError

_AFTER = st.sampled_from((1, 1, 2, 3, 4))
_CHANGES = st.sampled_from((1, 1, 2, 3))
_EDITS = st.sampled_from(("declare", "declare", "declare", "declare", "feature", "feature", "drop", "window", "window", "argument", "entity", "add", "gone", "back", "earlier", "partitions"))  # fmt: skip
_ARGUMENTS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("tile", ("1m", "5m", "10m")),
    ("dedupe", (0, 1, 2, 8)),
    ("ahead", (None, "10m", "1h")),
    ("ttl", (None, "5m", "2h")),
    ("ttl", (None, "5m", "2h")),
    ("partitions", (1, 2, 3)),
    ("where", (None, "x > 1", "kind in ['a', '']", "ok")),
    ("erase", (None, "x > 1", "kind == 'b'", "not ok")),
    ("tiles", ({}, {"3h": "1h"}, {"1d": "3h"})),
)


@st.composite
def changing(draw: st.DrawFn) -> Generated:
    """A project that changes while its stream goes on. Questions are asked before the changes, between them and after them."""
    first, known_ms, stream, changes = draw(projects()), START_MS, list[Told](), list[Change]()
    past, carried = [first], dict.fromkeys(draw(st.lists(st.sampled_from(sorted(LATER)), min_size=2, max_size=4, unique=True)), False)
    for left in reversed(range(draw(_CHANGES) + 1)):
        for _ in range(draw(_AFTER)):
            known_ms += draw(STEPS[1])
            stream.append(draw(told(known_ms, past[-1], carried)))
        if left:
            past.append(draw(edited(past[-1], past)))
            made = past[-1]
            carried |= dict.fromkeys([name for name in LATER if name in made.fields], True)
            changes.append(Change(len(stream), made.declared(), made))
    return Generated(first.declared(), stream, draw(asked_of(stream, 5)), first, changes)


@st.composite
def edited(draw: st.DrawFn, now: Written, past: list[Written]) -> Written:
    """A project with something changed."""
    made = now
    for _ in range(draw(st.sampled_from((2, 2, 3, 4)))):
        edit = draw(_EDITS)
        tried = draw(_PROJECT_EDITS[edit](made, past) if edit in _PROJECT_EDITS else _of_view(made, edit))
        with suppress(DeclarationError):  # a window without its tiles, a feature of a whole life beside `ahead`
            tried.declared()
            made = tried
    return made


def _with(now: Written, *changed: View) -> Written:
    return now._replace(views={**now.views, **{view.name: view for view in changed}})


@st.composite
def _of_view(draw: st.DrawFn, now: Written, edit: str) -> Written:
    """One view, changed."""
    if not now.views:
        return now
    view = now.views[draw(st.sampled_from(sorted(now.views)))]
    windows, number = list(view.arguments["windows"]), draw(st.integers(0, 4))
    others = tuple(feature for feature in view.features if feature.keywords["name"] != f"f{number}")
    if edit == "feature":
        return _with(now, view._replace(features=(*others, draw(aggregates(windows, number)))))
    if edit == "drop":
        return _with(now, view._replace(features=others or view.features))
    if edit == "entity":
        return _with(now, view._replace(entity=draw(st.sampled_from(sorted({*KEYS} - {view.entity})))))
    if edit == "window":
        windows = draw(st.lists(st.sampled_from(("10m", "30m", "3h", "1d", "lifetime")), min_size=1, max_size=3, unique=True))
        return _with(now, view._replace(arguments={**view.arguments, "windows": windows}))
    name, values = draw(st.sampled_from(_ARGUMENTS))
    return _with(now, view._replace(arguments={**view.arguments, name: draw(st.sampled_from(values))}))


@st.composite
def _declare(draw: st.DrawFn, now: Written, _past: list[Written]) -> Written:
    """A field that is declared, and a feature or a condition of it. It may be one that is never null from now on, and was absent before."""
    name = draw(st.sampled_from(sorted(LATER)))
    kind = draw(st.sampled_from((LATER[name], LATER[name], get_args(LATER[name])[0])))
    fields = {**now.fields, name: now.fields.get(name, kind)}
    if not now.views:
        return now._replace(fields=fields)
    view = now.views[draw(st.sampled_from(sorted(now.views)))]
    if draw(st.integers(0, 3)) == 0:
        condition = draw(st.sampled_from([column for column in OF_LATER[name] if " " in column or LATER[name] == bool | None]))
        argument = draw(st.sampled_from(("where", "erase")))
        return _with(now._replace(fields=fields), view._replace(arguments={**view.arguments, argument: condition}))
    feature = draw(aggregates(list(view.arguments["windows"]), draw(st.integers(0, 6)), OF_LATER[name]))
    others = tuple(other for other in view.features if other.keywords["name"] != feature.keywords["name"])
    return _with(now._replace(fields=fields), view._replace(features=(*others, feature)))


@st.composite
def _add(draw: st.DrawFn, now: Written, _past: list[Written]) -> Written:
    """A view more."""
    return _with(now, draw(views(len(now.views))))


@st.composite
def _gone(draw: st.DrawFn, now: Written, _past: list[Written]) -> Written:
    """A view less, and perhaps without the fields that only it read: events may carry them on."""
    if not now.views:
        return now
    gone = draw(st.sampled_from(sorted(now.views)))
    return now._replace(views={name: view for name, view in now.views.items() if name != gone})


@st.composite
def _back(draw: st.DrawFn, now: Written, past: list[Written]) -> Written:
    """A view that was there before, as it was."""
    return _with(now, draw(st.sampled_from([view for one in past for view in one.views.values()])))


@st.composite
def _earlier(draw: st.DrawFn, _now: Written, past: list[Written]) -> Written:
    """The whole project as it was."""
    found: Written = draw(st.sampled_from(past))
    return found


@st.composite
def _partitions(draw: st.DrawFn, now: Written, _past: list[Written]) -> Written:
    """More partitions of the event's topic."""
    return now._replace(partitions=now.partitions + draw(st.integers(1, 3)))


_PROJECT_EDITS = {"declare": _declare, "add": _add, "gone": _gone, "back": _back, "earlier": _earlier, "partitions": _partitions}
