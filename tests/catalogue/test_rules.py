"""Rules of an event that become stricter, in the plan and in the records of the catalogue."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.catalogue.test_plan import applied, planned, project, taxis, trips

from tidemill import Event, count, last
from tidemill.catalogue.definitions import NOTHING, project_of


def test_stricter_rules_hold_a_minute_after_they_are_in_force() -> None:
    """What was published before is taken by the rules of then; the plan says so, and once in force they count from the last record on."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 1_000))
    stricter = dataclasses.replace(trips(), future="5m", extra="refuse")
    plan = planned(before, project(taxis(stricter, [count(), last("tip")])), 5_000)
    told = "what becomes known before this is in force, or within a minute after it, is taken by the rules of before too"
    assert plan.changes[0].details == ("future: 1h -> 5m", "extra: keep -> refuse", told)
    assert (plan.first.events[0].future, plan.first.events[0].former) == ("1h", None)
    after = plan.finished(plan.first.handed_over("taxis", 2, {0: 9}, 90_000), 90_000)
    former = after.events[0].former
    assert former is not None
    assert (after.events[0].future, former.future, former.extra, former.until) == ("5m", "1h", "keep", 150_000)
    again = planned(after, project(taxis(stricter, [count(), last("tip")])), 200_000)
    assert (again.changes, again.first.events) == ([], after.events)
    third = (
        planned(after, project(taxis(dataclasses.replace(stricter, future="1m"), [count(), last("tip")])), 300_000).last.events[0].former
    )
    assert third is not None
    assert (third.future, third.until) == ("5m", 360_000)


def test_another_time_field() -> None:
    """Events with the former one are taken too, whether it is declared any more or not; not when it has another type now."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 1_000))

    def changed(fields: dict[str, Any], time: str) -> Any:
        event = Event("trip", fields, time=time)
        return planned(before, project(taxis(event, [count()])), 5_000)

    base = {"taxi": str, "miles": float, "tip": float | None}
    gone, there = changed(base | {"ts": int}, "ts"), changed(base | {"ts": int, "at": int}, "ts")
    for plan, fields in ((gone, {"at": "int"}), (there, {})):
        former = plan.last.events[0].former
        assert (former.time, former.fields) == ("at", fields)
        read = project_of(applied(plan), "town").events["trip"].former
        assert (read and read.event.time) == "at"
    other = changed(base | {"at": str}, "at")
    assert other.last.events[0].former is None
    assert (
        other.changes[0].details[-1] == "events on their way may become dead letters: let ingestion read all of them before you apply this"
    )
