"""The state of all retrainings as the fold of their topic. Pure: the same records give the same state, so a restart finds it again.

At most one run of a project is open. A run's step that does not fit what came before (of a run that is not open; a second beginning beside an open
one, from another process) changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tidemill.retrainings import RetrainingRecord, RetrainingStep, RetrainingTrigger

ENDS: tuple[RetrainingStep, ...] = ("kept", "rejected", "failed", "rolled back")
DAY_MS = 86_400_000


class OpenRun(NamedTuple):
    """The run that is open. `step`: its newest one, "waiting" left out; `since`: when that was taken; `expected`: about what the champion loses on a row, if it was
    measured; `told`: outcomes in the newest interim judgement of this step, None without one; `ends`: see RetrainingRecord, of the newest step that has them; `line`: snapshots that
    were a shadow in this step before `version`."""

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


@dataclass
class History:
    """`open`: the run that is open; `asked`: by model, the moment of a wish that nobody followed yet; `seen`: causes that began a run; `begun`: the beginnings of each
    model; `ended`: by model, when its last run ended; `results`: by model, where the topic of results ended when its last run began; `held`: triggers whose being held back was told since the last run."""

    open: OpenRun | None = None
    asked: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    begun: dict[str, list[int]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    held: set[tuple[str, RetrainingTrigger | None]] = field(default_factory=set)

    @classmethod
    def of(cls, records: Iterable[RetrainingRecord]) -> History:
        """The state after some records."""
        made = cls()
        for record in records:
            made.take(record)
        return made

    def take(self, record: RetrainingRecord) -> None:
        """Takes the next record."""
        if record.step == "asked":
            self.asked.setdefault(record.model, record.run)
        elif record.step == "skipped":
            self.held.add((record.model, record.trigger))
            if record.trigger == "hand":
                self.asked.pop(record.model, None)
        elif record.step == "begun":
            self._begin(record)
        elif self.open is not None and (record.model, record.run) == (self.open.model, self.open.run):
            self._go_on(self.open, record)

    def _begin(self, record: RetrainingRecord) -> None:
        if self.open is not None:
            return
        self.open = OpenRun(record.model, record.run, "begun", record.at, record.at, tuple(record.causes), champion=record.champion)
        self.seen |= set(record.causes)
        self.begun.setdefault(record.model, []).append(record.at)
        if ends := record.ends.get("results"):
            self.results[record.model] = ends[0]
        self.asked.pop(record.model, None)
        self.held = {(model, trigger) for model, trigger in self.held if model != record.model}

    def _go_on(self, run: OpenRun, record: RetrainingRecord) -> None:
        if record.step in ENDS:
            self.open = None
            self.ended[record.model] = record.at
            if record.step == "failed":
                self.seen -= set(run.causes)  # what began it is as it was
            return
        if record.step == "waiting":
            self.open = run._replace(told=max((finding.rows for finding in record.evidence), default=0))
            return
        if record.step == run.step == "shadow":  # a newer snapshot in the same step
            if record.version != run.version:
                self.open = run._replace(version=record.version, line=(*run.line, run.version))
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
        )

    def begun_within(self, model: str, now: int, span_ms: int) -> int:
        """How many runs of a model began within a span before now. After a clock went back, those that lie ahead count too."""
        return sum(now - at < span_ms for at in self.begun.get(model, ()))

    def rests(self, model: str, now: int, span_ms: int) -> bool:
        """Whether the last run of a model ended within a span before now, or lies ahead after a clock went back."""
        return model in self.ended and now - self.ended[model] < span_ms

    def free(self, model: str, now: int) -> int:
        """The first moment from now on that names no run of a model yet."""
        return next(at for at in itertools.count(now) if at not in self.begun.get(model, ()))

    def last_begun(self, model: str) -> int | None:
        """When the last run of a model began; None: never."""
        return max(self.begun.get(model, ()), default=None)
