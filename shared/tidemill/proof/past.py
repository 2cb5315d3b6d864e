"""By which views logged predictions were made: those of the catalogue when they were served, in the versions that they read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_view
from tidemill.names import LogName
from tidemill.offline.tables import stamp_of_row

FOLLOWING_MS = 60_000
"""So long after a change it is open whether a service worked by it."""


class Definition(NamedTuple):
    """What was in force from a moment on: a project of the catalogue, with all versions of views that there were."""

    since_ms: int
    project: Project


Rows = Sequence[Mapping[str, Any]]


class Past:
    """The views of a project through time. `history`: in order of time; without any, `views` are those of the file."""

    def __init__(self, history: Sequence[Definition], views: Sequence[FeatureView]) -> None:
        self._times = [item.since_ms for item in history]
        self._views = [{view.log: view for view in item.project.views.values()} for item in history]
        self._now = self._views[-1] if history else {view.log: view for view in views}

    def grouped(self, predictions: Rows) -> tuple[list[tuple[list[FeatureView], Rows]], int]:
        """Rows of the table `predictions` with the views that they read, named as today; and how many are passed over, since a version is
        gone, or a view changed within a minute of the answer."""
        groups, passed_over = dict[tuple[str, ...], tuple[list[FeatureView], list[Mapping[str, Any]]]](), 0
        for row in predictions:
            read = [self._read(log, row["served"]) for log in dict.fromkeys(entry.view for entry in stamp_of_row(row["stamp"]))]
            views = [view for view in read if view is not None]
            if len(views) < len(read):
                passed_over += 1
                continue
            groups.setdefault(tuple(map(_meaning, views)), (views, []))[1].append(row)
        return list(groups.values()), passed_over

    def _read(self, log: str, served_ms: int) -> FeatureView | None:
        """What a prediction read; None: it is gone, or nobody knows which."""
        now = self._now.get(LogName(log))
        if now is None or not self._times:
            return now
        moments = (served_ms - FOLLOWING_MS, served_ms, served_ms + FOLLOWING_MS)
        places = {max(bisect_right(self._times, moment) - 1, 0) for moment in moments}
        having = [self._views[place][now.log] for place in places if now.log in self._views[place]]
        if len({_meaning(view) for view in having}) > 1:
            return None
        then = (having or [now])[0]
        return then.as_version(now.version, in_force=now.in_force, since=then.since)


def _meaning(view: FeatureView) -> str:
    return repr((view.log, write_view(view.as_version(view.version, in_force=True)), dict(view.since)))
