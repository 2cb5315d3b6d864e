"""Since when archived events have a field, beside a look at all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent

from tidemill import Event
from tidemill.archive.reading import beginnings
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.offline.store import OfflineStore

OLD = Event("odd", {"at": int, "kind": str | None, "size": int | None}, "at")
NEW = Event("odd", {"at": int, "kind": str | None, "size": str | None, "tip": float | None, "seats": int | None}, "at")


def stored(folder: Path, events: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """Archives events that become known one millisecond after the other, three in a commit, and looks for the fields of today."""
    store, project = OfflineStore(folder), Project("odd", {"odd": OLD}, {})
    table = event_table(project, OLD)
    log = store.topic_table(table)
    for first in range(0, len(events), 3):
        part = events[first : first + 3]
        sent = [Sent(first + i, json.dumps({"at": NOW_MS} | dict(event)).encode(), NOW_MS + first + i) for i, event in enumerate(part)]
        log.append(table.rows_of({0: sent}), {(table.topic, 0): (first, first + len(part))})
    return beginnings(store.snapshot("events/odd"), NEW)


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "tip": st.sampled_from((None, 1.5, 2, "x", True)),
        "seats": st.sampled_from((None, 1, 2.0, 2.5, "3")),
        "size": st.sampled_from((None, 1)),
        "kind": st.sampled_from((None, "tip", '"seats"')),
    },
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=9))
def test_the_first_event_with_a_value_of_the_type(events: list[dict[str, Any]]) -> None:
    """Wherever it lies; a field with a column of its type is never told, and one that the first events lack by chance is not."""
    with TemporaryDirectory() as folder:
        found = stored(Path(folder), events)
    fits: dict[str, Callable[[Any], bool]] = {
        "tip": lambda value: type(value) in (int, float),
        "seats": lambda value: type(value) is int or value == 2.0,
        "size": lambda value: False,
    }
    for name, fit in fits.items():
        having = [i for i, event in enumerate(events) if name in event and fit(event[name])]
        if not having:
            assert found[name] is None
        elif name in found:
            assert found[name] == NOW_MS + having[0]
            assert having[0] > 0
    assert "kind" not in found
    assert "at" not in found


@pytest.mark.slow
@pytest.mark.parametrize(("every", "before", "told"), [(1, 1, True), (1, 40, True), (10, 20, False), (10, 300, True), (10, 0, False)])
def test_what_is_lacking_by_chance(tmp_path: Path, every: int, before: int, told: bool) -> None:
    """One event in `every` has the field, after some that do not: few of these are chance, many are not."""
    events: list[dict[str, Any]] = [{} for _ in range(before)] + [{"tip": 1.5} if i % every == 0 else {} for i in range(200)]
    found = stored(tmp_path, events)
    assert found.get("tip", 0) == (NOW_MS + before if told else 0)


@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_what_was_another_type_before(tmp_path: Path, before: int) -> None:
    """However many events had the field as another type: it begins with the first value of its own."""
    assert stored(tmp_path, [{"tip": "much"}] * before + [{"tip": 1.5}])["tip"] == NOW_MS + before


def test_nothing_is_archived(tmp_path: Path) -> None:
    """Then nobody lacks anything."""
    store = OfflineStore(tmp_path)
    table = event_table(Project("odd", {"odd": OLD}, {}), OLD)
    store.topic_table(table).append(table.rows_of({}), {(table.topic, 0): (0, 2)})
    assert beginnings(store.snapshot("events/odd"), NEW) == {}
