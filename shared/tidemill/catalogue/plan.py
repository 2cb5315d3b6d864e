"""What a project would change in the catalogue.

A view whose stored tiles would get another meaning, or another place, becomes another version, which is filled from the archive. A view that
only serves its tiles otherwise (another `ttl`, another name in requests, a feature over slots that are there) stays the version that it is.

A plan that fills versions takes effect in two records. By the first, services know the new versions, and everything in force stays as it is:
the models, which may read what only the new versions have, come with the second, after all versions are filled and folded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NamedTuple

import msgspec

from tidemill.catalogue.definitions import NOTHING, Definitions, ViewVersion, project_of, with_loads
from tidemill.catalogue.rules import base_of, on_their_way, taken_before, taken_until
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.declarations.written import (
    WrittenEvent,
    WrittenInput,
    WrittenView,
    read_event,
    read_view,
    write_event,
    write_model,
    write_view,
)
from tidemill.errors import DeclarationError
from tidemill.kernel.view import ViewKernel
from tidemill.names import LogName, log_name

FOLLOWED_MS = 60_000
"""So long after a change every service that runs works by it."""

Kind = Literal["new", "changed", "gone"]
Numbered = tuple[str, int]
"""A view and one of its versions."""


class Change(NamedTuple):
    """One change, for a person. `what`: event, view or model; `details`: one line each; `version`: of a view that has to be filled."""

    kind: Kind
    what: str
    name: str
    details: tuple[str, ...] = ()
    version: int | None = None


class Surroundings(NamedTuple):
    """What is there beside the catalogue. `routed`: the events that were routed or archived before; `logs`: the logs that have a topic, and
    whether it holds records that have what their view folds; `lacking`: for each event the fields that some archived event lacks; `begun`: those that earlier events do
    not have, with the moment since when events have it, epoch ms (None: none has it); `loads`: for each event the files from which its
    history was loaded."""

    routed: Collection[str] = ()
    logs: Mapping[LogName, bool] = {}
    lacking: Mapping[str, Collection[str]] = {}
    begun: Mapping[str, Mapping[str, int | None]] = {}
    loads: Mapping[str, Collection[str]] = {}


@dataclass(frozen=True)
class CataloguePlan:
    """The changes, and the records by which they are made: `first`, then `finished`.

    `fills`: the versions that have to be filled after `first`; `waits`: all versions that come in force by `finished`, once feature
    computation and offline store have them. Without changes `first` is the catalogue as it was.
    """

    first: Definitions
    changes: list[Change] = field(default_factory=list)
    fills: list[ViewVersion] = field(default_factory=list)
    waits: list[Numbered] = field(default_factory=list)
    last: Definitions = NOTHING
    replaced: Mapping[Numbered, WrittenView] = field(default_factory=dict)

    def finished(self, now: Definitions, time_ms: int) -> Definitions:
        """The record after `now` that puts all changes in force. `now`: `first`, with every filled version handed over."""
        if now == self._complete(now):
            return now
        had = {event.name: event.former for event in now.events}
        events = tuple(
            event
            if event.former is None or event.former == had.get(event.name)
            else taken_until(event, event.former, time_ms + FOLLOWED_MS)
            for event in self.last.events
        )
        return msgspec.structs.replace(self._complete(now), number=now.number + 1, time=time_ms, events=events)

    def _complete(self, now: Definitions) -> Definitions:
        views = tuple(
            msgspec.structs.replace(found, view=self.replaced.get((found.view.name, found.version), found.view)) for found in now.views
        )
        last = self.last
        return msgspec.structs.replace(now, views=views, events=last.events, in_force=last.in_force, models=last.models)


def plan_of(definitions: Definitions, project: Project, time_ms: int, around: Surroundings) -> CataloguePlan:
    """The plan for a project. `time_ms`: the moment that the new record tells.

    Raises DeclarationError when a field that some version reads is declared with another type.
    """
    planner = _Planner(definitions, project, around, time_ms)
    changes = [*_compared("event", {item.name: item for item in definitions.events}, planner.events)]
    for view in project.views.values():
        changes += planner.add(view)
    changes += planner.gone()
    models = {model.name: write_model(model) for model in project.models.values()}
    changes += _compared("model", {item.name: item for item in definitions.models}, models)
    if not changes:
        return CataloguePlan(definitions, last=definitions)
    last = Definitions(0, 0, tuple(planner.events.values()), (), planner.in_force, tuple(models.values()))
    first = Definitions(
        definitions.number + 1, time_ms, planner.meanwhile(), tuple(planner.views), planner.at_once, definitions.models, planner.numbers,
        planner.since(time_ms), planner.loads,
    )  # fmt: skip
    waits = [(name, number) for name, number in planner.in_force.items() if planner.at_once.get(name) != number]
    plan = CataloguePlan(first, changes, [found for found in planner.views if found.handover is None], waits, last, planner.replaced)
    if not plan.waits:  # nothing to wait for: one record makes all changes
        return CataloguePlan(plan._complete(first), changes, last=last, replaced=planner.replaced)
    return plan


def unapplied(definitions: Definitions, project: Project) -> list[Change]:
    """What the project's file changes in the catalogue, as far as the two alone say; nothing before the first record.

    Raises DeclarationError when it cannot follow what is in force.
    """
    return plan_of(definitions, project, definitions.time, Surroundings()).changes if definitions.number else []


class _Planner:
    """Brings the declared views among the versions. `at_once`: the versions in force by the first record; `in_force`: by the last."""

    def __init__(self, before: Definitions, project: Project, around: Surroundings, time_ms: int) -> None:
        self._before, self._project, self._around = before, project, around
        known = {event.name: event for event in before.events}
        events = _with_what_is_read(before, project, around.lacking)
        from_ms = time_ms + FOLLOWED_MS
        self.events = {
            name: taken_before(_strict_from(event, known.get(name), from_ms), known.get(name), from_ms) for name, event in events.items()
        }
        self.views = [found for found in before.views if found.handover is not None]
        self._given_up = {found.view.name: found.version for found in before.views if found.handover is None}
        self.at_once, self.in_force = dict(before.in_force), dict(before.in_force)
        self.numbers = dict(before.numbers)
        self.loads = with_loads(before.loads, around.loads)
        self.replaced: dict[Numbered, WrittenView] = {}

    def add(self, view: FeatureView) -> Iterator[Change]:
        """Finds a version of a view that has its tiles, or makes one."""
        written, current = write_view(view), self._before.in_force.get(view.name)
        old = None if current is None else self._before.version(view.name, current)
        kind: Kind = "new" if old is None else "changed"
        given_up = self._given_up.pop(view.name, None)
        notes = [] if given_up is None else [f"version {given_up}, of which the filling was broken off, is given up"]
        details = [*([] if old is None else differences(old.view, written)), *notes]
        same = [item for item in self._handed(view.name, current) if self._same_tiles(item, written)]
        found = next((item for item in same if not self._lacks(item)), None)
        if found is None:
            made = self._new(written)
            for item in same[:1]:
                files = self._lacks(item)
                details.append(f"history was loaded from {files} file{'s' * (files > 1)} since version {item.version} was filled")
            yield Change(kind, "view", view.name, tuple(details), None if made.handover is not None else made.version)
            return
        if found.view != written:
            self.replaced[view.name, found.version] = written
        if found.version != current:
            self.in_force[view.name] = found.version
            yield Change(kind, "view", view.name, (*details, f"version {found.version} has its values already"))
        elif found.view != written:
            yield Change(kind, "view", view.name, (*details, "served from the tiles that are there"))
        elif notes:
            yield Change(kind, "view", view.name, tuple(details))

    def gone(self) -> Iterator[Change]:
        """The views that are not declared any more."""
        for name in self._before.in_force.keys() - self._project.views.keys():
            del self.in_force[name]
            yield Change("gone", "view", name, ("its values stay until they are pruned",))
        for name, version in self._given_up.items():
            yield Change("gone", "view", name, (f"version {version}, of which the filling was broken off, is given up",))

    def meanwhile(self) -> tuple[WrittenEvent, ...]:
        """The events while versions are filled: what is in force reads them as before, new versions find their fields."""
        old = {event.name: event for event in self._before.events}
        found = {name: _both(old[name], event) if name in old else event for name, event in self.events.items()}
        return tuple((old | found).values())

    def since(self, time_ms: int) -> dict[str, dict[str, int]]:
        """Since when events have their fields: what is known, and what the archive tells of fields that are declared only now, or as another
        type. `time_ms`: from now on, for a field that no event has."""
        before = {event.name: event.fields for event in self._before.events}
        found = dict(self._before.since)
        for name, event in self.events.items():
            known, begun = before.get(name, {}), self._around.begun.get(name, {})
            new = {
                key: time_ms if ms is None else ms for key, ms in begun.items() if base_of(known.get(key, "")) != base_of(event.fields[key])
            }
            if new:
                found[name] = found.get(name, {}) | new
        return found

    def _handed(self, view: str, current: int | None) -> list[ViewVersion]:
        """The versions of a view that have their events: that in force first, then the newest."""
        found = [item for item in self.views if item.view.name == view]
        return sorted(found, key=lambda item: (item.version != current, -item.version))

    def _lacks(self, found: ViewVersion) -> int:
        """How many files were loaded since a version was filled."""
        return max(len(self.loads.get(found.view.source, ())) - found.loaded, 0)

    def _same_tiles(self, found: ViewVersion, written: WrittenView) -> bool:
        """Whether stored tiles of a version mean what the declared view would store, in the same place."""
        if (found.view.source, found.view.partitions) != (written.source, written.partitions):
            return False
        source = read_event(self.events[written.source])
        return ViewKernel(read_view(found.view, source)).definition == ViewKernel(read_view(written, source)).definition

    def _new(self, written: WrittenView) -> ViewVersion:
        name, number = written.name, self._before.newest(written.name) + 1
        logs, unrouted = self._around.logs, written.source not in self._around.routed
        there = written.where is None and logs.get(log_name(name, written.partitions)) is True  # records of before know no `where`
        adopted = number == 1 and there and not self.loads.get(written.source)
        if adopted or unrouted:
            made = ViewVersion(written, number, {}, 0 if adopted else self._before.number + 1)
            self.in_force[name] = number
            if name not in self.at_once:
                self.at_once[name] = number
        else:
            while log_name(name, written.partitions, number) in logs:  # somebody may have written to it
                number += 1
            made = ViewVersion(written, number)
            self.in_force[name] = number
        self.numbers[name] = number
        self.views.append(made)
        return made


def _both(old: WrittenEvent, new: WrittenEvent) -> WrittenEvent:
    """An event that views and models of both declarations can read."""
    fields = {name: kind for name, kind in new.fields.items() if name not in old.fields or base_of(old.fields[name]) != base_of(kind)}
    fields |= {name: kind for name, kind in new.fields.items() if _is_null(kind) and not _is_null(old.fields.get(name, ""))}
    forms = {name: form for name, form in new.forms.items() if name not in old.fields}
    return msgspec.structs.replace(old, fields={**old.fields, **fields}, strict=new.strict, forms=old.forms | forms)


def _strict_from(event: WrittenEvent, known: WrittenEvent | None, from_ms: int) -> WrittenEvent:
    """An event whose new fields, and those that have another type now, are strict from a moment on."""
    if known is None:
        return event
    before = {name: base_of(kind) for name, kind in known.fields.items()}
    new = [
        name for name, kind in event.fields.items() if (_is_null(kind) or _has_default(event, name)) and before.get(name) != base_of(kind)
    ]
    kept = {name: at_ms for name, at_ms in known.strict.items() if name in event.fields}
    return msgspec.structs.replace(event, strict=kept | dict.fromkeys(new, from_ms))


def _with_what_is_read(before: Definitions, project: Project, lacking: Mapping[str, Collection[str]]) -> dict[str, WrittenEvent]:
    """The declared events, with what versions of views in the catalogue read beside: events that are not declared any more, and fields,
    which may be absent from now on. A field that earlier events lack may be absent too. Raises DeclarationError when a field that is read
    is declared with another type."""
    known = {event.name: event for event in before.events}
    events = {}
    for event in project.events.values():
        moments = {event.time, *(model.at for model in project.models.values() if model.on is event)}
        events[event.name] = _nullable(write_event(event), known.get(event.name), moments, lacking.get(event.name, ()))
    read = msgspec.structs.replace(before, views=tuple(found for found in before.views if found.handover is not None))
    for view in project_of(read, project.name).views.values():
        source = write_event(view.source)
        declared = events.setdefault(source.name, source)
        for name in view.read_fields:
            old, new = base_of(source.fields[name]), declared.fields.get(name)
            if new is None:
                forms = {key: form for key, form in source.forms.items() if key == name}
                declared = msgspec.structs.replace(
                    declared, fields={**declared.fields, name: f"{old} | None"}, forms=declared.forms | forms
                )
                _check_paths(declared, view.name)
            elif base_of(new) != old:
                raise DeclarationError(
                    f"Event {source.name!r}: field {name!r} was {old} and is {base_of(new)} now, and view {view.name!r} reads it",
                    where=project.events[source.name].declared_at, field=f"fields[{name!r}]",
                    mend="give the field another name, or take the view out of the project, apply, and prune it",
                )  # fmt: skip
        events[source.name] = declared
    return events


def _check_paths(declared: WrittenEvent, view: str) -> None:
    """Raises DeclarationError when a field that a view reads lies where the project has another one now."""
    try:
        read_event(declared)
    except DeclarationError as error:
        raise DeclarationError(
            f"{error.message}, and view {view!r} reads the field of the other name", where=error.where, field=error.field,
            mend="give the field the name that it had, or take the view out of the project, apply, and prune it",
        ) from None  # fmt: skip


def _nullable(declared: WrittenEvent, known: WrittenEvent | None, moments: Collection[str], lacking: Collection[str]) -> WrittenEvent:
    """An event whose fields may be null where earlier events lack them."""

    def earlier(name: str) -> bool:
        if _has_default(declared, name):
            return False
        if known is None or name in lacking:
            return name in lacking
        return _is_null(known.fields.get(name, " | None")) or base_of(known.fields[name]) != base_of(declared.fields[name])

    fields = {
        name: kind if _is_null(kind) or name in moments or not earlier(name) else f"{kind} | None" for name, kind in declared.fields.items()
    }
    return msgspec.structs.replace(declared, fields=fields)


def _is_null(kind: str) -> bool:
    return kind.endswith(" | None")


def _has_default(event: WrittenEvent, name: str) -> bool:
    return name in event.forms and event.forms[name].default is not msgspec.UNSET


def _compared(what: str, before: Mapping[str, msgspec.Struct], after: Mapping[str, msgspec.Struct]) -> Iterator[Change]:
    for name, written in after.items():
        if name not in before:
            yield Change("new", what, name)
        elif before[name] != written:
            yield Change("changed", what, name, tuple(differences(before[name], written)))
    yield from (Change("gone", what, name) for name in before.keys() - after.keys())


def differences(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    """One line for each field that differs; of a mapping or a list, one for each entry."""
    for name in before.__struct_fields__:
        if name in ("strict", "former"):  # they follow from the rest
            continue
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _entries(name, old, new)
        elif isinstance(old, tuple) and isinstance(new, tuple):
            yield from _entries(name, *(dict.fromkeys(chain.from_iterable(map(_each, items))) for items in (old, new)))
        elif old != new:
            yield from _changed(name, old, new)
    yield from on_their_way(before, after)


def _entries(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for entry in [*old, *(entry for entry in new if entry not in old)]:
        if entry not in new:
            yield f"{name}: without {entry}"
        elif entry not in old:
            yield f"{name}: with {entry}" + ("" if new[entry] is None else f" ({new[entry]})")
        elif old[entry] != new[entry]:
            yield f"{name}: {entry}: {old[entry]} -> {new[entry]}"


def _changed(name: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct):
        yield from (f"{name}.{found}" for found in differences(old, new))
    else:
        yield f"{name}: {old} -> {new}"


def _each(item: object) -> list[str]:
    return item.each() if isinstance(item, WrittenInput) else [str(item)]
