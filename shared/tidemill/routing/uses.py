"""What a project does with the fields of an event, and so what their values may be."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tidemill.declarations import Event
from tidemill.declarations.project import Project


class Uses(NamedTuple):
    """`keys`: fields that are keys of views, or subjects or entities of models. `numbers`: whole numbers that views or outcomes read as a
    number: a double, which holds them exactly up to 2^53."""

    keys: Collection[str] = ()
    numbers: Collection[str] = ()


UNUSED = Uses()


def uses_of(project: Project, event: Event) -> Uses:
    """What a project does with an event. `event`: one of the project."""
    keys, read = set[str](), set[str]()
    for view in project.views_of(event):
        keys.add(view.key.field)
        read |= {*view.value_fields, *(() if view.condition is None else view.condition.fields)}
    for model in project.models.values():
        if model.on is event:
            keys |= {model.subject, *(view.key.name for view in model.views)}
        if model.outcome.source is event:
            keys.add(model.outcome.subject)
            read |= set(model.outcome.column.fields)
    return Uses(keys, {name for name in read if event.base_type(name) is int and not event.unit(name)})
