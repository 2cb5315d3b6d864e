"""By which views predictions are judged: those of the catalogue when they were served."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from tests.verify.projects import START_MS

from tidemill import Event, FeatureView, count
from tidemill.catalogue.definitions import NOTHING, project_of
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.declarations.project import Project
from tidemill.proof.past import FOLLOWING_MS, Definition, Past

EVENT = Event("e", {"who": str, "at": int}, "at")
HOUR = 3_600_000


def project(**options: Any) -> Project:
    """A project with one view."""
    return Project("p", {"e": EVENT}, {"v": FeatureView("v", EVENT, "who", [count()], **{"windows": ["1h"]} | options)})


def history() -> list[Definition]:
    """Version 1, then with a ttl, then version 2 beside it; an hour between them."""
    records, around = [NOTHING], Surroundings({"e"})
    for hours, options in ((0, {}), (1, {"ttl": "2h"}), (2, {"ttl": "2h", "windows": ["3h"]})):
        plan = plan_of(records[-1], project(**options), START_MS + hours * HOUR, around)
        now = plan.first
        for found in plan.fills:
            now = now.handed_over("v", found.version, {}, START_MS + hours * HOUR)
        records += [plan.first, plan.finished(now, START_MS + hours * HOUR)]
    return [Definition(record.time, project_of(record, "p")) for before, record in pairwise(records) if record != before]


def row(log: str, served_ms: int) -> dict[str, Any]:
    """A logged prediction."""
    return {"served": served_ms, "stamp": json.dumps([[log, p, 3] for p in (0, 1)])}


@pytest.mark.parametrize(
    ("log", "hours", "name", "ttl"),
    [("v.p4", 0.5, "v@v1", None), ("v.p4", 1.5, "v@v1", "2h"), ("v.p4", 2.5, "v@v1", "2h"), ("v.v2.p4", 2.5, "v", "2h"), ("v.p4", -1, "v@v1", None)],
)  # fmt: skip
def test_the_view_of_the_moment(log: str, hours: float, name: str, ttl: str | None) -> None:
    """In the version that was read, with the name that it has today."""
    ([(views, rows)], passed_over) = Past(history(), []).grouped([row(log, START_MS + int(hours * HOUR))])
    assert [(view.name, view.ttl, view.log) for view in views] == [(name, ttl, log)]
    assert (len(rows), passed_over) == (1, 0)


def test_what_nobody_knows_is_passed_over() -> None:
    """Within a minute of a change either declaration may have been read, and a version that was pruned is no more."""
    asked = [row("v.p4", START_MS + HOUR + ms) for ms in (-FOLLOWING_MS - 1, -FOLLOWING_MS, 0, FOLLOWING_MS - 1, FOLLOWING_MS)]
    groups, passed_over = Past(history(), []).grouped([*asked, row("v.v7.p4", START_MS)])
    assert [(views[0].ttl, len(rows)) for views, rows in groups] == [(None, 1), ("2h", 1)]
    assert passed_over == 4


def test_without_a_catalogue() -> None:
    """The file's views are those that were read."""
    view = project().views["v"]
    assert Past([], [view]).grouped([row(view.log, 5)]) == ([([view], [row(view.log, 5)])], 0)
