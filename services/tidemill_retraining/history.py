"""The state of a model's retrainings as the fold of their topic. Pure: the same records give the same state, so a restart finds it again.

At most one run of a model is open. A run's step that does not fit what came before (of a run that is not open; a second beginning beside an open
one, from another process) changes nothing.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tidemill.retrainings import RetrainingRecord, RetrainingStep, RetrainingTrigger

ENDS: tuple[RetrainingStep, ...] = ("kept", "rejected", "failed", "rolled back")
DAY_MS = 86_400_000


class OpenRun(NamedTuple):
    """The run that is open. `step`: its newest one, "waiting" left out; `since`: when that was taken; `expected`: about what the champion loses on a row, if it was
    measured; `told`: outcomes in the newest interim judgement of this step, None without one; `ends`: see RetrainingRecord, of the newest step that has them; `line`: snapshots that
    were a shadow in this step before `version`; `seated`: when `version` became one."""

    model: str
    run: int
    step: RetrainingStep
    since: int
    begun: int
    causes: tuple[str, ...]
    version: str = ""
    champion: str = ""
    share: float = 0.0
    expected: float = 0.25
    told: int | None = None
    ends: Mapping[str, list[int]] = {}
    line: tuple[str, ...] = ()
    seated: int = 0


@dataclass
class History:
    """Of one model. `open`: the run that is open; `asked`: the moment of a wish that nobody followed yet; `seen`: causes that began a run; `begun`: when runs
    began; `ended`: when the last one ended; `results`: where the topic of results ended when the last one began; `held`: triggers whose being held back was told since then."""

    open: OpenRun | None = None
    asked: int | None = None
    seen: set[str] = field(default_factory=set)
    begun: list[int] = field(default_factory=list)
    ended: int | None = None
    results: int | None = None
    held: set[RetrainingTrigger | None] = field(default_factory=set)

    @classmethod
    def of(cls, records: Iterable[RetrainingRecord]) -> History:
        """The state after some records of a model."""
        made = cls()
        for record in records:
            made.take(record)
        return made

    def take(self, record: RetrainingRecord) -> None:
        """Takes the next record."""
        if record.step == "asked":
            self.asked = record.run if self.asked is None else self.asked
        elif record.step == "skipped":
            self.held.add(record.trigger)
            if record.trigger == "hand":
                self.asked = None
        elif record.step == "begun":
            self._begin(record)
        elif self.open is not None and record.run == self.open.run:
            self._go_on(self.open, record)

    def _begin(self, record: RetrainingRecord) -> None:
        if self.open is not None:
            return
        self.open = OpenRun(record.model, record.run, "begun", record.at, record.at, tuple(record.causes), champion=record.champion)
        self.seen |= set(record.causes)
        self.begun.append(record.at)
        if ends := record.ends.get("results"):
            self.results = ends[0]
        self.asked = None
        self.held = set()

    def _go_on(self, run: OpenRun, record: RetrainingRecord) -> None:
        if record.step in ENDS:
            self.open = None
            self.ended = record.at
            if record.step == "failed":
                self.seen -= set(run.causes)  # what began it is as it was
            return
        if record.step == "waiting":
            self.open = run._replace(told=max((finding.rows for finding in record.evidence), default=0))
            return
        if record.step == run.step == "shadow":  # a newer snapshot in the same step
            if record.version != run.version:
                self.open = run._replace(version=record.version, line=(*run.line, run.version), seated=record.at)
            return
        measured = [finding.champion for finding in record.evidence if finding.name == "loss" and finding.champion is not None]
        self.open = run._replace(
            step=record.step,
            since=record.at,
            version=record.version or run.version,
            champion=record.champion or run.champion,
            share=record.share,
            expected=measured[0] if measured else run.expected,
            told=None,
            ends=record.ends or run.ends,
            line=(),
            seated=record.at,
        )

    def begun_within(self, now: int, span_ms: int) -> int:
        """How many runs began within a span before now. After a clock went back, those that lie ahead count too."""
        return sum(now - at < span_ms for at in self.begun)

    def rests(self, now: int, span_ms: int) -> bool:
        """Whether the last run ended within a span before now, or lies ahead after a clock went back."""
        return self.ended is not None and now - self.ended < span_ms

    def free(self, now: int) -> int:
        """The first moment from now on that names no run yet."""
        return next(at for at in itertools.count(now) if at not in self.begun)

    def last_begun(self) -> int | None:
        """When the last run began; None: never."""
        return max(self.begun, default=None)


def histories(records: Iterable[RetrainingRecord]) -> dict[str, History]:
    """The state of each model after the records of a project."""
    made = defaultdict[str, History](History)
    for record in records:
        made[record.model].take(record)
    return dict(made)
