"""What a project does with the fields of an event, and so what their values may be."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tidemill.declarations import Event
from tidemill.declarations.project import Project


class Uses(NamedTuple):
    """`keys`: fields that are keys of views, or subjects or entities of models. `numbers`: whole numbers that become a
    feature or an outcome, which is a double, and holds them exactly up to 2^53. Conditions compare all digits. `joined`: fields that are
    the key of a view together."""

    keys: Collection[str] = ()
    numbers: Collection[str] = ()
    joined: Collection[tuple[str, ...]] = ()


UNUSED = Uses()


def uses_of(project: Project, event: Event) -> Uses:
    """What a project does with an event. `event`: one of the project."""
    keys, read, joined = set[str](), set[str | None](), set[tuple[str, ...]]()
    for view in project.views_of(event):
        keys.update(view.key.fields)
        joined.add(view.key.fields)
        read |= {aggregation.column for aggregation in view.features if any(slot.kind.sees_value for slot in aggregation.slots)}
    for model in project.models.values():
        if model.on is event:
            keys |= {model.subject, *(name for view in model.views for name in view.key.names)}
        if model.outcome.source is event:
            keys.add(model.outcome.subject)
            read.add(model.outcome.value)
    return Uses(
        keys,
        {name for name in event.fields if name in read and event.base_type(name) is int},
        [names for names in joined if len(names) > 1],
    )
