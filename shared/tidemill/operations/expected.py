"""Which fences show that published events are applied. Pure logic; it needs the project alone.

A fence names, for each partition of the application's topic, the last position that it has seen. A publisher knows the positions of its
events. So it knows what each fence will name once they are applied, and need not ask Kafka or ingestion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from tidemill.declarations import FeatureView
from tidemill.declarations.expressions import number_of
from tidemill.declarations.project import Project
from tidemill.kernel.fences import sources
from tidemill.kernel.keys import asked_key, partition_of
from tidemill.online.keys import fence_key

Placed = tuple[str, int, int, dict[str, Any]]
"""An event as it was published: name, partition, offset, data."""

Expected = dict[bytes, dict[int, int]]
"""Key of a fence -> partition of the application's topic -> the position that the fence must have seen."""


class Expectations:
    """What the fences of a project's views will name."""

    def __init__(self, project: Project) -> None:
        self._fences = {
            event.name: [
                (view.key.fields, _feeding(view), [fence_key(project.name, view.log, p) for p in range(view.partitions)])
                for view in project.views_of(event)
            ]
            for event in project.events.values()
        }

    def of(self, events: Iterable[Placed]) -> Expected:
        """The positions that the fences must have seen once all these events are applied. An event that is refused, or too far ahead for a
        view, counts too: then the fences may never get there. One for which `where` of a view is not true does not count for it.

        Raises TypeError for an event whose key is neither text nor a whole number: its partition is not known.
        """
        expected: Expected = defaultdict(dict)
        for name, partition, offset, data in events:
            for fields, feeds, fences in self._fences[name]:
                key = asked_key([data.get(field) for field in fields])
                if key is not None and feeds(data):
                    seen = expected[fences[partition_of(key, len(fences))]]
                    seen[partition] = max(offset, seen.get(partition, -1))
        return expected


def _feeding(view: FeatureView) -> Callable[[dict[str, Any]], bool]:
    """Whether data feed a view, as far as `where` says. Data of a wrong type, which are refused, do."""
    if view.condition is None:
        return lambda _data: True
    fields, number = view.condition.fields, number_of(view.condition)

    def feeds(data: dict[str, Any]) -> bool:
        try:
            return bool(number(SimpleNamespace(**{name: data.get(name) for name in fields})))
        except (TypeError, ValueError):
            return True

    return feeds


def lacking(expected: Mapping[bytes, dict[int, int]], stored: Iterable[bytes | None]) -> Expected:
    """The part of `expected` that the stored fences, in the same order, have not reached yet."""
    return {key: wanted for (key, wanted), fence in zip(expected.items(), stored, strict=True) if not _reached(fence, wanted)}


def _reached(fence: bytes | None, wanted: dict[int, int]) -> bool:
    seen = sources(fence)
    return all(seen.get(partition, -1) >= offset for partition, offset in wanted.items())
