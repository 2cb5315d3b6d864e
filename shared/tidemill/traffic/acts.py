"""What traffic consists of: questions and events in order, made from a seed. Pure: the same project, plan and start, the same acts."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple

from tidemill.declarations import Event, Model
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.timestamps import rfc3339
from tidemill.traffic.changed import changed, other_outcome
from tidemill.traffic.drifts import OUTCOME, Drift
from tidemill.traffic.invented import Invention, Row

_RARE = 0.3  # of questions get an event of an outcome whose absence is an answer


@dataclass(frozen=True)
class TrafficPlan:
    """What is wanted. `rate`: questions, and events of each other kind, a second; `events`: how many in all, outcomes included; `delay_ms`: from a
    question to its outcome. `like`: recorded rows by event. `models`: those that are asked (None: all)."""

    seed: int = 0
    rate: float = 10.0
    seconds: float | None = 60.0
    events: int | None = None
    delay_ms: int = 5_000
    entities: int = 20
    drifts: Sequence[Drift] = ()
    like: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    models: Sequence[str] | None = None


class Act(NamedTuple):
    """A question to `model`, or an event to publish (`model` is empty), so many ms after the start. `row`: the event's fields by name; `truth`: of the
    event of an outcome, what it says of the question to the model `answers` about `subject`."""

    offset_ms: int
    event: str
    row: Row
    model: str = ""
    subject: str = ""
    truth: float | str | None = None
    answers: str = ""


class _Question(NamedTuple):
    """`base`: as it was recorded or invented; `plain`: with its time and names; `row`: after drifts. What becomes of it follows from `plain`."""

    base: Row
    plain: Row
    row: Row


def acts(project: Project, plan: TrafficPlan, start_ms: int) -> Iterator[Act]:
    """The acts in the order of their moments. A question comes before the event that announces it. Raises TidemillError for events that cannot be made."""
    return iter(_Traffic(project, plan, start_ms))


class _Traffic:
    def __init__(self, project: Project, plan: TrafficPlan, start_ms: int) -> None:
        self._plan, self._start_ms = plan, start_ms
        self._project, self._invention = project, Invention(project, plan.seed, plan.entities)
        self._models = [model for name, model in project.models.items() if plan.models is None or name in plan.models]
        asking = {model.on.name for model in self._models}
        answers = {model.outcome.source.name for model in self._models}
        self._events = [event for event in project.events.values() if event.name in asking or event.name not in answers]
        self._pairs = {model.name: self._paired(model) for model in self._models}
        for event in project.events.values():
            if event.envelope is not None:
                raise TidemillError(
                    f"event {event.name!r} is a change of a database, which is not simulated", mend="change rows of a test database instead"
                )

    def _paired(self, model: Model) -> dict[str, Row]:
        """Recorded outcomes by subject."""
        rows = self._plan.like.get(model.outcome.source.name, ())
        return {str(row[model.outcome.subject]): dict(row) for row in rows}

    def __iter__(self) -> Iterator[Act]:
        """Merges what each event brings; what comes later waits."""
        waiting: list[tuple[int, int, Act]] = []
        order, made = count(), 0
        for event, offset_ms, number in self._moments():
            while waiting and waiting[0][0] <= offset_ms:
                if self._plan.events is not None and made >= self._plan.events:
                    return
                act = heapq.heappop(waiting)[2]
                made += not act.model
                yield act
            for act in self._happens(event, offset_ms, number):
                heapq.heappush(waiting, (act.offset_ms, next(order), act))
        while waiting and (self._plan.events is None or made < self._plan.events):
            act = heapq.heappop(waiting)[2]
            made += not act.model
            yield act

    def _moments(self) -> Iterator[tuple[Event, int, int]]:
        """(event, offset, its number), in order: each event comes by chance, at the rate."""
        last_ms = None if self._plan.seconds is None else int(self._plan.seconds * 1000)
        upcoming = [(0.0, place, 0) for place in range(len(self._events))]
        draws = [random.Random(f"{self._plan.seed}:{event.name}:moments") for event in self._events]
        heapq.heapify(upcoming)
        while upcoming:
            offset, place, number = heapq.heappop(upcoming)
            if last_ms is not None and offset >= last_ms:
                return
            yield self._events[place], int(offset), number
            heapq.heappush(upcoming, (offset + draws[place].expovariate(self._plan.rate) * 1000, place, number + 1))

    def _happens(self, event: Event, offset_ms: int, number: int) -> Iterator[Act]:
        """The questions about an event, the event, and what becomes of the questions."""
        draw = random.Random(f"{self._plan.seed}:{event.name}:{number}")
        chance = random.Random(f"{self._plan.seed}:{event.name}:{number}:drifts")
        base = self._base(event, draw)
        asking = [model for model in self._models if model.on is event]
        plain = self._stamped(event, base, offset_ms, number, asking)
        row = changed(event, plain, self._active(offset_ms), chance, self._invention.unseen)
        for model in asking:
            yield Act(offset_ms, event.name, row, model.name, str(row[model.subject]))
        yield from self._published(event, row, offset_ms, chance)
        told = {event.name}
        for model in asking:
            if model.outcome.source.name not in told:
                told.add(model.outcome.source.name)  # one event may answer several models
                yield from self._outcome(model, _Question(base, plain, row), offset_ms, number, draw)

    def _base(self, event: Event, draw: random.Random) -> Row:
        rows = self._plan.like.get(event.name)
        return dict(draw.choice(rows)) if rows else self._invention.row(event, draw)

    def _stamped(self, event: Event, row: Row, offset_ms: int, number: int, asking: Sequence[Model]) -> Row:
        """With the time of now, and an id and subjects of its own. A subject that is an entity stays: it is asked about again and again."""
        times = {event.time, *(model.at for model in asking)}
        named = {name for name in (event.id, *(model.subject for model in asking)) if name is not None}
        keys = {name for model in asking if model.outcome.source is event for name in (model.subject,)}
        own = self._own(event, number)
        made = {name: own if event.base_type(name) is str else number for name in named - keys}
        return row | made | {name: self._time(event, name, offset_ms) for name in times}

    def _own(self, event: Event, number: int) -> str:
        return f"s{self._plan.seed}-{self._start_ms:x}-{event.name}-{number}"

    def _time(self, event: Event, name: str, offset_ms: int) -> int | str:
        at_ms = self._start_ms + offset_ms
        return at_ms if event.base_type(name) is int else rfc3339(at_ms)

    def _active(self, offset_ms: int) -> list[Drift]:
        return [drift for drift in self._plan.drifts if drift.holds(offset_ms)]

    def _published(self, event: Event, row: Row, offset_ms: int, chance: random.Random, **more: Any) -> Iterator[Act]:
        """The event, unless it is lost; later, if it is late. An outage is of the moment at which it would be published."""
        mine = [drift for drift in self._active(offset_ms) if drift.is_of_event(event) or ("answers" in more and drift.target == OUTCOME)]
        lost = max((drift.amount for drift in mine if drift.kind == "lost"), default=0.0)
        late_ms = int(sum(drift.amount for drift in mine if drift.kind == "late"))
        if chance.random() >= lost:
            yield Act(offset_ms + late_ms, event.name, row, **more)

    def _outcome(self, model: Model, question: _Question, offset_ms: int, number: int, draw: random.Random) -> Iterator[Act]:
        """What becomes of a question, after the delay: nothing, where no event is an answer."""
        event, at_ms, row = model.outcome.source, offset_ms + self._plan.delay_ms, question.row
        chance = random.Random(f"{self._plan.seed}:{model.name}:{number}:outcome")
        pairs = self._pairs[model.name]
        if pairs:
            found = pairs.get(str(question.base[model.subject]))
        else:
            push = self._invention.push(model, question.plain)
            there = model.outcome.absent is None or draw.random() < _RARE
            found = self._invention.row(event, draw, push, model.outcome.column.fields) if there else None

        def anew() -> Row:
            if pairs:
                return dict(chance.choice(list(pairs.values())))
            return self._invention.row(event, chance, chance.gauss(0, 1.5), model.outcome.column.fields)

        found = other_outcome(model, found, self._active(at_ms), chance, anew)
        if found is None:
            return
        shared = {name: value for name, value in row.items() if name in event.fields and name in self._entities(event)}
        stamped = self._stamped(event, found | shared, at_ms, number, ()) | {model.outcome.subject: row[model.subject]}
        if event.id is not None and event.id != model.outcome.subject:
            stamped[event.id] = self._own(event, number) if event.base_type(event.id) is str else number
        told = changed(event, stamped, self._active(at_ms), chance, self._invention.unseen)
        truth = model.outcome.reader()(SimpleNamespace(**told))
        yield from self._published(event, told, at_ms, chance, answers=model.name, subject=str(row[model.subject]), truth=truth)

    def _entities(self, event: Event) -> set[str]:
        """The fields of an event that name what it is about: an outcome is about the same as its question."""
        return {name for view in self._project.views_of(event) for name in view.key.fields}
