"""Which fences tell that published events are applied, from the project alone: pure logic.

A fence names the last position of each partition of the application's topic that it has seen. So who publishes events, and knows where they lie,
knows what each fence will say once they are applied, and need ask neither Kafka nor ingestion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tidemill.declarations.project import Project
from tidemill.kernel.fences import sources
from tidemill.kernel.keys import entity_key, partition_of
from tidemill.online.keys import fence_key

Placed = tuple[str, int, int, dict[str, Any]]
"""An event as it was published: name, partition, offset, data."""

Expected = dict[bytes, dict[int, int]]
"""Key of a fence -> partition of the application's topic -> the position that it has to have seen."""


class Expectations:
    """What the fences of a project's views will say."""

    def __init__(self, project: Project) -> None:
        self._fences = {
            event.name: [
                (view.key.field, [fence_key(project.name, view.log, p) for p in range(view.partitions)]) for view in project.views_of(event)
            ]
            for event in project.events.values()
        }

    def of(self, events: Iterable[Placed]) -> Expected:
        """What tells that all of these are applied. An event that is refused, or left out for a view, is expected too, so this may never come.

        Raises TypeError for an event whose key is neither text nor a whole number: where it goes is not known.
        """
        expected: Expected = defaultdict(dict)
        for name, partition, offset, data in events:
            for field, fences in self._fences[name]:
                entity = data.get(field)
                if entity is not None:
                    seen = expected[fences[partition_of(entity_key(entity), len(fences))]]
                    seen[partition] = max(offset, seen.get(partition, -1))
        return expected


def lacking(expected: Mapping[bytes, dict[int, int]], stored: Iterable[bytes | None]) -> Expected:
    """What is not there yet, given the stored fences in the same order."""
    return {key: wanted for (key, wanted), fence in zip(expected.items(), stored, strict=True) if not _reached(fence, wanted)}


def _reached(fence: bytes | None, wanted: dict[int, int]) -> bool:
    seen = sources(fence)
    return all(seen.get(partition, -1) >= offset for partition, offset in wanted.items())
