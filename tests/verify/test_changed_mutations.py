"""The judge of changes can fail: each fault that is put into plan, fill or hand-over gives a difference or an error, and none without it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.verify.judging import differences
from tests.verify.projects import MINUTE, START_MS, Change, Generated, Question, Told

import tidemill as tm
from tidemill.archive import reading, view_records
from tidemill.archive.columns import ARROW, TIME
from tidemill.archive.view_records import RecordMaker
from tidemill.catalogue import plan
from tidemill.catalogue.definitions import Definitions
from tidemill.catalogue.plan import CataloguePlan
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_event
from tidemill.errors import TidemillError
from tidemill.records import ViewRecord
from tidemill.testing import applying

Patch = pytest.MonkeyPatch
FIELDS: dict[str, Any] = {"at": int, "shop": str, "x": int | None}
WITH_N = {**FIELDS, "n": int | None}
COUNT = (tm.count(),)
BOTH = (tm.count(), tm.sum("x"))
Sale = tuple[int, int, str | None, dict[str, Any]]
"""Known, time (minutes), id, and what else the event carries."""


def declared(*features: Aggregation, fields: dict[str, Any] = FIELDS, **arguments: Any) -> Project:
    """A project of one view."""
    event = Event("told", fields, time="at")
    view = FeatureView("view", event, "shop", features, **{"windows": ["10m"], "tile": "5m", "partitions": 2, **arguments})
    return Project("p", {"told": event}, {"view": view})


def story(first: Project, before: list[Sale], change: Project, after: list[Sale], at: int) -> Generated:
    """A stream with a change in it. One question is asked at the end, for a minute."""
    told = [
        Told(START_MS + known * MINUTE, START_MS + time * MINUTE, id, {"shop": "n", "at": START_MS + time * MINUTE, **more})
        for known, time, id, more in before + after
    ]
    asked = [Question(len(told), "n", START_MS + at * MINUTE)]
    return Generated(first, told, asked, changes=[Change(len(before), change)])


class Instead:
    """A module in which some functions are others."""

    def __init__(self, module: Any, **others: Any) -> None:
        self.__dict__.update(vars(module) | others)


def no_values(texts: Any, kind: type) -> Any:
    """A column of nulls."""
    return pa.chunked_array([pa.nulls(len(texts), ARROW[kind])])


MADE, HANDED_OVER, BEGINS = RecordMaker.made, Definitions.handed_over, Definitions.begins.fget  # type: ignore[attr-defined]
COMPLETE = CataloguePlan._complete
IN_FORCE_ONLY = property(
    lambda self: {log: begin for log, begin in BEGINS(self).items() if log in {self.version(*one).log for one in self.in_force.items()}}
)
FAULTS: dict[str, tuple[Generated, Callable[[Patch], None]]] = {
    "tiles of another meaning are kept": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1})], declared(*BOTH), [(1, 1, None, {"x": 1})], 2),
        lambda patch: patch.setattr(plan._Planner, "_same_tiles", lambda *_: True),
    ),
    "filled events lose their ids": (
        story(declared(*COUNT), [(0, 0, "a", {"x": 1})], declared(*BOTH), [(1, 1, "a", {"x": 1})], 2),
        lambda patch: patch.setattr(view_records, "ViewRecord", lambda t, k, s, v, _: ViewRecord(t, k, s, v)),
    ),
    "events are filled in the order in which they happened": (
        story(declared(*COUNT), [(11, 11, None, {"x": 1}), (12, 0, None, {"x": 1})], declared(*BOTH, tile="2m"), [(13, 11, None, {})], 11),
        lambda patch: patch.setattr(RecordMaker, "made", lambda self, events: MADE(self, events.sort_by(TIME))),
    ),
    "events that lie too far ahead are filled": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1}), (1, 12, None, {"x": 2})], declared(*BOTH, ahead="10m"), [(2, 2, None, {})], 12),
        lambda patch: patch.setattr(view_records, "pc", Instead(pc, less_equal=lambda ahead, _: pc.is_valid(ahead))),
    ),
    "events that do not feed the view are filled": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1}), (1, 1, None, {})], declared(*COUNT, where="x > 0"), [(2, 2, None, {"x": 2})], 2),
        lambda patch: patch.setattr(view_records, "fed", lambda _, events: pc.is_valid(events[TIME])),
    ),
    "a window is whole although no event had the field of where": (
        story(declared(*COUNT), [(0, 0, None, {})], declared(*COUNT, fields=WITH_N, where="n > 0"), [(1, 1, None, {"n": 2})], 2),
        lambda patch: patch.setattr(applying, "beginnings", lambda *_: {}),
    ),
    "an entity is filled into another partition": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1})], declared(*BOTH), [(1, 1, None, {"x": 1})], 2),
        lambda patch: patch.setattr(view_records, "zlib", Instead(zlib, crc32=lambda key: zlib.crc32(key) + 1)),
    ),
    "what an event carried undeclared is forgotten": (
        story(declared(*COUNT), [(0, 0, None, {"n": 1})], declared(tm.sum("n"), fields=WITH_N), [(1, 1, None, {"n": 2})], 2),
        lambda patch: patch.setattr(reading._Extra, "completed", lambda self, name, stored: no_values(self._texts, self._event.base_type(name)) if stored is None else stored),
    ),
    "a window is whole although no event had the field": (
        story(declared(*COUNT), [(0, 0, None, {})], declared(tm.sum("n"), fields=WITH_N), [(1, 1, None, {"n": 2})], 2),
        lambda patch: patch.setattr(applying, "beginnings", lambda *_: {}),
    ),
    "a field that earlier events lack may not be null": (
        story(
            declared(*COUNT), [(0, 0, None, {}), (1, 1, None, {"n": 1})], declared(tm.count(), tm.sum("n"), fields={**FIELDS, "n": int}),
            [(2, 2, None, {"n": 2})], 3,
        ),
        lambda patch: patch.setattr(plan, "_nullable", lambda declared, *_: declared),
    ),
    "the hand-over passes over an event": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1})], declared(*BOTH), [(1, 1, None, {"x": 1})], 2),
        lambda patch: patch.setattr(
            Definitions, "handed_over", lambda self, view, version, handover, *more: HANDED_OVER(self, view, version, {p: at + 1 for p, at in handover.items()}, *more)
        ),
    ),
    "nothing is routed to an older version": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1})], declared(*BOTH), [(1, 1, None, {"x": 1})], 2),
        lambda patch: patch.setattr(Definitions, "begins", IN_FORCE_ONLY),
    ),
    "a view that is served otherwise is served as before": (
        story(declared(*COUNT), [(0, 0, None, {})], declared(*COUNT, ttl="5m"), [(1, 1, None, {})], 7),
        lambda patch: patch.setattr(CataloguePlan, "_complete", lambda self, now: COMPLETE(replace(self, replaced={}), now)),
    ),
    "a field that an older version reads is gone": (
        story(declared(tm.sum("n"), fields=WITH_N), [(0, 0, None, {"n": 1})], declared(*COUNT), [(1, 1, None, {"n": 1})], 2),
        lambda patch: patch.setattr(plan, "_with_what_is_read", lambda _, project, __: {name: write_event(event) for name, event in project.events.items()}),
    ),
    "a change is not put in force": (
        story(declared(*COUNT), [(0, 0, None, {"x": 1})], declared(*BOTH), [(1, 1, None, {"x": 1})], 2),
        lambda patch: patch.setattr(CataloguePlan, "finished", lambda self, now, _: now),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, monkeypatch: Patch) -> None:
    """Right without the fault, different with it."""
    made, put = FAULTS[fault]
    assert differences(made) == []
    put(monkeypatch)
    with suppress(TidemillError):
        assert differences(made) != []
