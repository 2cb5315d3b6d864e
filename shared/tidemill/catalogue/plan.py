"""What a project would change in the catalogue.

A view whose stored tiles would get another meaning, or another place, becomes another version, which is filled from the archive. A view that
only serves its tiles otherwise (another `ttl`, another name in requests, a feature over slots that are there) stays the version that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.declarations.written import WrittenEvent, read_event, read_view, write_event, write_model, write_view
from tidemill.errors import DeclarationError
from tidemill.kernel.view import ViewKernel

Kind = Literal["new", "changed", "gone"]


@dataclass(frozen=True)
class Change:
    """One change, for a person. `what`: event, view or model; `details`: one line each; `version`: of a view that has to be filled."""

    kind: Kind
    what: str
    name: str
    details: tuple[str, ...] = ()
    version: int | None = None


@dataclass(frozen=True)
class CataloguePlan:
    """The changes, and the catalogue once they are made. A version that has to be filled is in it, but not in force yet."""

    changes: list[Change] = field(default_factory=list)
    definitions: Definitions = field(default_factory=lambda: Definitions(0, 0))

    @property
    def fills(self) -> list[ViewVersion]:
        """The versions that have to be filled."""
        return [found for found in self.definitions.views if found.handover is None]


def plan_of(definitions: Definitions, project: Project, time_ms: int) -> CataloguePlan:
    """The plan for a project. `time_ms`: the moment that the new record tells. Without changes the plan has the same definitions."""
    events = _with_what_is_read(definitions, project)
    models = {model.name: write_model(model) for model in project.models.values()}
    changes = [*_compared("event", {item.name: item for item in definitions.events}, events)]
    views, in_force = list(definitions.views), dict(definitions.in_force)
    for view in project.views.values():
        changes += _add(view, definitions, views, in_force)
    for name in definitions.in_force.keys() - project.views.keys():
        del in_force[name]
        changes.append(Change("gone", "view", name, ("its values stay until they are pruned",)))
    changes += _compared("model", {item.name: item for item in definitions.models}, models)
    if not changes:
        return CataloguePlan([], definitions)
    after = Definitions(definitions.number + 1, time_ms, tuple(events.values()), tuple(views), in_force, tuple(models.values()))
    return CataloguePlan(changes, after)


def _add(view: FeatureView, before: Definitions, views: list[ViewVersion], in_force: dict[str, int]) -> Iterator[Change]:
    """Brings a declared view among the versions."""
    written, current = write_view(view), before.in_force.get(view.name)
    newest = before.newest(view.name)
    waiting = before.version(view.name, newest) if newest and newest != current else None
    base = waiting or (before.version(view.name, current) if current else None)
    if base is not None and base.view == written:
        if current is None and base.handover is not None:
            in_force[view.name] = base.version
            yield Change("new", "view", view.name, ("declared again",))
        return
    if base is not None and _same_tiles(base, before, view):
        views[views.index(base)] = msgspec.structs.replace(base, view=written)
        if current is None and base.handover is not None:
            in_force[view.name] = base.version
        yield Change("changed", "view", view.name, (*_differences(base.view, written), "served from the tiles that are there"))
        return
    views.append(ViewVersion(written, newest + 1))
    details = () if base is None else tuple(_differences(base.view, written))
    yield Change("changed" if base else "new", "view", view.name, details, newest + 1)


def _same_tiles(found: ViewVersion, before: Definitions, view: FeatureView) -> bool:
    """Whether stored tiles of a version mean what the declared view would store, in the same place."""
    source = next(event for event in before.events if event.name == found.view.source)
    stored = ViewKernel(read_view(found.view, read_event(source)))
    return stored.definition == ViewKernel(view).definition and found.view.partitions == view.partitions


def _with_what_is_read(before: Definitions, project: Project) -> dict[str, WrittenEvent]:
    """The declared events, with what versions of views in the catalogue read beside: events that are not declared any more, and fields,
    which may be absent from now on. Raises DeclarationError when such a field is declared with another type."""
    events = {event.name: write_event(event) for event in project.events.values()}
    for view in project_of(before, project.name).views.values():
        source = write_event(view.source)
        declared = events.setdefault(source.name, source)
        for name in (*view.value_fields, view.key.field):
            old, new = _base(source.fields[name]), declared.fields.get(name)
            if new is None:
                declared = msgspec.structs.replace(declared, fields={**declared.fields, name: f"{old} | None"})
            elif _base(new) != old:
                raise DeclarationError(
                    f"Event {source.name!r}: field {name!r} was {old} and is {_base(new)} now, and view {view.name!r} reads it",
                    where=project.events[source.name].where, field=f"fields[{name!r}]",
                    mend="give the field another name, or take the view out of the project, apply, and prune it",
                )  # fmt: skip
        events[source.name] = declared
    return events


def _base(kind: str) -> str:
    return kind.removesuffix(" | None")


def _compared(what: str, before: Mapping[str, msgspec.Struct], after: Mapping[str, msgspec.Struct]) -> Iterator[Change]:
    for name, written in after.items():
        if name not in before:
            yield Change("new", what, name)
        elif before[name] != written:
            yield Change("changed", what, name, tuple(_differences(before[name], written)))
    yield from (Change("gone", what, name) for name in before.keys() - after.keys())


def _differences(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    """One line for each field that differs; of a mapping or a list, one for each entry."""
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _entries(name, old, new)
        elif isinstance(old, tuple) and isinstance(new, tuple):
            yield from _entries(name, {_shown(item): None for item in old}, {_shown(item): None for item in new})
        elif old != new:
            yield f"{name}: {_shown(old)} -> {_shown(new)}"


def _entries(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for entry in [*old, *(entry for entry in new if entry not in old)]:
        if entry not in new:
            yield f"{name}: without {entry}"
        elif entry not in old:
            yield f"{name}: with {entry}" + ("" if new[entry] is None else f" ({new[entry]})")
        elif old[entry] != new[entry]:
            yield f"{name}: {entry}: {old[entry]} -> {new[entry]}"


def _shown(item: object) -> str:
    return msgspec.json.encode(item).decode() if isinstance(item, msgspec.Struct) else str(item)
