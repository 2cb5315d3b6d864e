"""The judge can fail: each fault that is put into the kernel, or before it, gives a difference on a small stream, and none without it."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tests.verify.judging import differences
from tests.verify.projects import MINUTE, START_MS, Generated, Question, Told

import tidemill as tm
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregations import Aggregation, Mean
from tidemill.declarations.expressions import Column
from tidemill.declarations.first import Oldest
from tidemill.declarations.last_k import NewestValues
from tidemill.declarations.project import Project
from tidemill.declarations.slots import NewestValue
from tidemill.declarations.windows import Sliding
from tidemill.kernel import recent
from tidemill.kernel import view as kernel_view
from tidemill.kernel.packed import EntityState, Packing
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import Applied, ViewKernel
from tidemill.routing import router

Patch = pytest.MonkeyPatch
EVENT = Event("told", {"at": int, "shop": str, "x": int | None}, time="at")


def project(features: list[Aggregation], stream: list[tuple[int, int, str | None, int | None]], at: int, **arguments: Any) -> Generated:
    """A view with these features, and one question at a minute. `stream`: (known, time, id, x), in minutes."""
    view = FeatureView("view", EVENT, "shop", features, **{"windows": ["10m"], "tile": "5m", **arguments})
    told = [
        Told(START_MS + known * MINUTE, START_MS + time * MINUTE, id, {"shop": "n", "at": START_MS + time * MINUTE, "x": x})
        for known, time, id, x in stream
    ]
    asked = [Question(len(told), "n", START_MS + at * MINUTE)]
    return Generated(Project("p", {"told": EVENT}, {"view": view}), told, asked)


def moved(first: int, last: int, always: bool = False) -> Callable[[Sliding, int, int, int], tuple[int, int, bool]]:
    """A window that begins and ends some tiles later. `always`: it says that all its tiles are there."""
    right = Sliding.at

    def at(self: Sliding, time_ms: int, newest_ms: int, kept_from: int) -> tuple[int, int, bool]:
        begin, end, whole = right(self, time_ms, newest_ms, kept_from)
        return begin + first, end + last, whole or always

    return at


def forgetful(self: ViewKernel, state: EntityState, time_ms: int, event_id: str | None, values: object) -> Applied:
    """An entity that keeps the newest id alone."""
    applied = APPLY(self, state, time_ms, event_id, values)
    state.ids = state.ids[-8:]
    return applied


def counts_what_erases(self: kernel_view._ErasingKernel, state: EntityState, *event: Any) -> Applied:
    """An erasing event that is folded after it has erased."""
    applied = ERASING(self, state, *event)
    if applied is Applied.ERASED:
        without_id: Any = [None if isinstance(part, str) else part for part in event]
        APPLY(self, state, *without_id)
    return applied


def erases_in_time(self: kernel_view._ErasingKernel, state: EntityState, time_ms: int, *event: Any) -> Applied:
    """An erasing event that is refused when it is too late to be folded."""
    return Applied.LATE if time_ms < state.newest - self.horizon_ms else ERASING(self, state, time_ms, *event)


def forgets_ids(self: Packing, state: EntityState) -> None:
    """An entity that is wholly new once it was erased."""
    CLEAR(self, state)
    state.ids = b""


APPLY, ERASING, CLEAR = ViewKernel.apply, kernel_view._ErasingKernel.apply, Packing.clear
TARGET = router._ViewTarget
COUNT = [tm.count(), tm.sum("x")]
FAULTS: dict[str, tuple[Generated, Callable[[Patch, Generated], None]]] = {
    "a window begins a tile too late": (
        project(COUNT, [(0, 0, None, 1), (12, 12, None, 2)], 12),
        lambda patch, _: patch.setattr(Sliding, "at", moved(1, 0)),
    ),
    "a window begins a tile too early": (
        project(COUNT, [(0, 0, None, 1), (3, 3, None, 1), (16, 16, None, 2)], 16, windows=["10m", "30m"]),
        lambda patch, _: patch.setattr(Sliding, "at", moved(-1, 0)),
    ),
    "a window ends a tile too early": (
        project(COUNT, [(0, 0, None, 1), (12, 12, None, 2)], 12),
        lambda patch, _: patch.setattr(Sliding, "at", moved(0, -1)),
    ),
    "a late event counts": (
        project(COUNT, [(11, 11, None, 1), (12, 0, None, 2)], 11, tile="2m"),
        lambda patch, _: patch.setattr(kernel_view, "horizon_ms", lambda windows, ahead_ms: 2**62),
    ),
    "an event that is late but not too late does not count": (
        project(COUNT, [(8, 8, None, 1), (9, 0, None, 2)], 9),
        lambda patch, _: patch.setattr(kernel_view, "horizon_ms", lambda windows, ahead_ms: MINUTE),
    ),
    "a duplicate counts": (
        project(COUNT, [(0, 0, "a", 1), (1, 1, "a", 1)], 2, dedupe=8),
        lambda patch, _: patch.setattr(kernel_view, "_holds", lambda ids, digest: False),
    ),
    "one id fewer is remembered": (
        project(COUNT, [(0, 0, "a", 1), (1, 1, "b", 1), (2, 0, "a", 1)], 2, dedupe=2),
        lambda patch, _: patch.setattr(ViewKernel, "apply", forgetful),
    ),
    "an event counts again after eight others": (
        project(COUNT, [*((i, 0, event_id, 1) for i, event_id in enumerate("abcdefghij")), (20, 0, "a", 1)], 20, dedupe="30m", windows=["2h"]),
        lambda patch, _: patch.setattr(Recent, "again", lambda self, entity, event_id: False),
    ),
    "an event never counts again": (
        project(COUNT, [*((i, 0, event_id, 1) for i, event_id in enumerate("abcdefghij")), (50, 0, "a", 1)], 50, dedupe="30m", windows=["2h"]),
        lambda patch, _: patch.setattr(recent, "part_ms", lambda for_ms: 2**40),
    ),
    "null counts as 0": (
        project([tm.mean("x"), tm.min("x")], [(0, 0, None, None), (1, 1, None, 4)], 2),
        lambda patch, made: made.project.views["view"].columns.update(x=Column("x", ("x",), "(v.x or 0)")),
    ),
    "of two values at one time the older is the last": (
        project([tm.last("x")], [(0, 0, None, 1), (1, 0, None, 2)], 2),
        lambda patch, _: patch.setattr(NewestValue, "fold", "if t > s[{last_time}]: s[{i}] = x"),
    ),
    "of two values at one time the newer is the first": (
        project([tm.first("x")], [(0, 0, None, 1), (1, 0, None, 2)], 2),
        lambda patch, _: patch.setattr(Oldest, "fold", "if t <= s[{i}]: s[{i}] = t; s[{i1}] = x"),
    ),
    "a late value stands at the end of a list": (
        project([tm.last_k("x", 3)], [(1, 1, None, 1), (2, 0, None, 2)], 2),
        lambda patch, _: patch.setattr(NewestValues, "add", lambda _, held, time_ms, value: held + struct.pack("<qd", time_ms, value)),
    ),
    "the horizon forgets what ahead adds": (
        project(COUNT, [(0, 8, None, 1), (1, -4, None, 2)], 1, ahead="10m"),
        lambda patch, _: patch.setattr(kernel_view, "horizon_ms", lambda windows, ahead_ms: 10 * MINUTE),
    ),
    "an event that lies too far ahead counts in a view": (
        project(COUNT, [(0, 0, None, 1), (1, 12, None, 2)], 12, ahead="10m"),
        lambda patch, _: patch.setattr(router, "_ViewTarget", lambda view, target, _, begin: TARGET(view, target, math.inf, begin)),
    ),
    "an event for which where is null feeds the view": (
        project(COUNT, [(0, 0, None, 1), (1, 1, None, None), (2, 2, None, 2)], 2, where="x < 2"),
        lambda patch, _: patch.setattr(router, "number_of", lambda column: lambda data: data.x is None or data.x < 2),
    ),
    "where is forgotten": (
        project(COUNT, [(0, 0, None, 1), (1, 1, None, 2)], 2, where="x < 2"),
        lambda patch, _: patch.setattr(router, "_reading", lambda view: (None, router._values_of(view.value_fields))),
    ),
    "what is erased stays": (
        project(COUNT, [(0, 0, None, 1), (1, 1, None, 5), (2, 2, None, 1)], 2, erase="x > 4"),
        lambda patch, _: patch.setattr(Packing, "clear", lambda self, state: None),
    ),
    "what erases counts": (
        project(COUNT, [(0, 0, "a", 1), (1, 1, "b", 5), (2, 2, "c", 1)], 2, erase="x > 4"),
        lambda patch, _: patch.setattr(kernel_view._ErasingKernel, "apply", counts_what_erases),
    ),
    "what is erased is there, with nothing": (
        project(COUNT, [(0, 0, None, 1), (1, 1, None, 5)], 2, erase="x > 4"),
        lambda patch, _: patch.setattr(kernel_view, "NEVER", 1),
    ),
    "an erased entity forgets its ids": (
        project(COUNT, [(0, 0, "a", 1), (1, 1, "b", 5), (2, 0, "a", 1)], 2, dedupe=8, erase="x > 4"),
        lambda patch, _: patch.setattr(Packing, "clear", forgets_ids),
    ),
    "an event that is too late does not erase": (
        project(COUNT, [(40, 40, None, 1), (41, 1, None, 5)], 41, erase="x > 4"),
        lambda patch, _: patch.setattr(kernel_view._ErasingKernel, "apply", erases_in_time),
    ),
    "an event for which erase is null erases": (
        project(COUNT, [(0, 0, None, 1), (1, 1, None, None)], 2, erase="x > 4"),
        lambda patch, _: patch.setattr(kernel_view, "number_of", lambda column: lambda values: values.x is None),
    ),
    "an entity does not expire": (
        project(COUNT, [(0, 0, None, 1)], 6, ttl="5m"),
        lambda patch, _: patch.setattr(FeatureView, "ttl_ms", None),
    ),
    "a mean counts the nulls": (
        project([tm.mean("x"), tm.count()], [(0, 0, None, None), (1, 1, None, 4)], 2),
        lambda patch, _: patch.setattr(Mean, "read", lambda self, n, total: total / (n + 1)),
    ),
    "what was dropped is served as if it were there": (
        project(COUNT, [(0, 0, None, 1), (60, 60, None, 2)], 3),
        lambda patch, _: patch.setattr(Sliding, "at", moved(0, 0, True)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, monkeypatch: Patch) -> None:
    """Right without the fault, different with it."""
    made, put = FAULTS[fault]
    assert differences(made) == []
    put(monkeypatch, made)
    assert differences(made) != []
