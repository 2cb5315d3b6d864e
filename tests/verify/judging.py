"""A generated project on the twins, judged by SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from tests.verify.archive import Raw, archived
from tests.verify.projects import START_MS, Change, Generated, Question, Told

from tidemill.declarations import Event, FeatureView
from tidemill.declarations.project import Project
from tidemill.names import version_name
from tidemill.testing import Reason, Refused, World
from tidemill.testing.values import FeatureValue
from tidemill.verify.compare import agrees
from tidemill.verify.sql import AskedMoment, Found, SqlAnswer, SqlView

_BY_CHANCE = 1e-6
KEYS_OF = {("shop",): "shop", ("number",): "number", ("shop", "number"): "both"}


class Judged(NamedTuple):
    """A version of a view, as it was declared last. `since`: fields of the event, and the moment before which no event has them."""

    view: FeatureView
    since: frozenset[tuple[str, int]] = frozenset()

    @property
    def sql_of(self) -> FeatureView:
        """The view for SQL."""
        return self.view.as_version(1, in_force=True, since=dict(self.since))


class Answer(NamedTuple):
    """What was served for a question under a name, and the moment before which all that was seen had become known."""

    name: str
    judged: Judged
    question: Question
    served: dict[str, FeatureValue]
    before: int


class Difference(NamedTuple):
    """A feature that is served with another value or state than SQL gives, or is not served (None)."""

    view: str
    question: Question
    feature: str
    served: FeatureValue | None
    sql: Found

    def __repr__(self) -> str:
        """For a person."""
        asked = f"{self.view} of {self.question.entity!r} at {self.question.at_ms - START_MS} ms after {self.question.after} events"
        served = "not served" if self.served is None else f"{self.served.value!r} {self.served.status}"
        return f"\n{asked}: {self.feature} is {served}, by SQL {self.sql.value!r} {self.sql.state}"


class Played(NamedTuple):
    """A project that has run. `archive`: its events, with a column for each field that was ever declared; `since`: see Judged."""

    world: World
    archive: pa.Table
    answers: list[Answer]
    since: dict[str, int]


Look = Callable[[World, Project, Mapping[str, int]], None]
"""Gets a world, its project and `since`, before each change."""


def played(made: Generated, look: Look = lambda _world, _project, _since: None) -> Played:
    """Runs a project with its changes, and asks its questions on the way, of all versions of views."""
    world, raws, answers, declared = World(made.project), list[Raw](), list[Answer](), made.project
    versions, since = with_versions({}, world, declared, {}), dict[str, int]()
    for number, told in enumerate(made.stream, 1):
        event = declared.events["told"]
        raw = publish(world, event, told)
        if raw is not None:
            raws.append(raw._replace(aside=_aside(made, number, event, raw)))
        if number == len(made.stream) or made.stream[number].known_ms > told.known_ms:
            answers += asked(made, number, world, versions)
        for change in made.changes:
            if change.after == number:
                look(world, declared, dict(since))
                since |= begun(made, change, raws, world.now_ms)
                declared = change.project
                world.apply(declared)
                versions = with_versions(versions, world, declared, since)
                answers += asked(made, number, world, versions)
    return Played(world, archived(_all_fields(made), raws, made.no_column), answers, since)


def with_versions(before: Mapping[str, Judged], world: World, declared: Project, since: Mapping[str, int]) -> dict[str, Judged]:
    """The versions that can be asked for, by name, once a project is in force."""
    views = {name: judged.view for name, judged in before.items()}
    views |= {version_name(name, world.project.views[name].version): view for name, view in declared.views.items()}
    return {name: Judged(view, frozenset(since.items())) for name, view in views.items()}


def begun(made: Generated, change: Change, raws: Sequence[Raw], now_ms: int) -> dict[str, int]:
    """The fields that a change declares for the first time, and that the earlier of the events do not have; and since when events have them,
    or from now on, when none has. Not those that earlier events lack by chance, since few events have them at all."""
    earlier = [made.project, *(one.project for one in made.changes if one.after < change.after)]
    event, found = change.project.events["told"], dict[str, int]()
    for name in event.fields.keys() - {name for project in earlier for name in project.events["told"].fields}:
        first = next((raw for raw in raws if _usable(raw.data.get(name), event.base_type(name))), None)
        if first is None and raws:
            found[name] = now_ms
        elif first is not None:
            before = sum(raw.known_ms < first.known_ms for raw in raws)
            lacked = max(1 - sum(name in raw.data for raw in raws) / (len(raws) - before), 0)
            if before and lacked**before <= _BY_CHANCE:
                found[name] = first.known_ms
    return found


def _usable(value: Any, kind: type) -> bool:
    """Whether a field of this type can have this value."""
    if kind is int and isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53
    return isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def _aside(made: Generated, number: int, event: Event, raw: Raw) -> frozenset[str]:
    """The fields that an event carried without a column for them."""
    undeclared = frozenset(raw.data) - frozenset(event.fields)
    return undeclared | (made.later if number <= made.undeclared else frozenset())


def _all_fields(made: Generated) -> Event:
    events = [project.events["told"] for project in (made.project, *(change.project for change in made.changes))]
    fields = {name: kind for event in events for name, kind in event.fields.items()}
    return Event("told", fields, time=events[0].time)


def asked(made: Generated, number: int, world: World, versions: Mapping[str, Judged]) -> Iterator[Answer]:
    """The answers to the questions that are asked after so many events."""
    in_force = {version_name(name, view.version): name for name, view in world.project.views.items()}
    for question in made.questions:
        for version, judged in versions.items():
            if question.after == number and KEYS_OF[judged.view.key.fields] == question.key:
                name = in_force.get(version, version)
                served = world.features(name, question.entity, at=question.at_ms)
                yield Answer(name, judged, question, served, made.stream[number - 1].known_ms + 1)


def differences(made: Generated, run: Played | None = None) -> list[Difference]:
    """Runs a project, if it has not run, and compares its answers with SQL."""
    _, archive, answers, _ = run or played(made)
    found = []
    for judged in dict.fromkeys(answer.judged for answer in answers):
        mine = [answer for answer in answers if answer.judged == judged]
        sql = SqlView(judged.sql_of, archive, threads=1)
        told = sql.answers([AskedMoment(answer.question.text, answer.question.at_ms, answer.before) for answer in mine])
        sql.close()
        for (name, _, question, served, _), answer in zip(mine, told, strict=True):
            found += [
                Difference(name, question, feature, served.get(feature), answer.features[feature]) for feature in differing(served, answer)
            ]
    return found


def differing(served: dict[str, FeatureValue], answer: SqlAnswer) -> list[str]:
    """The features that differ, or are not served."""

    def differs(name: str) -> bool:
        return name not in served or agrees(answer, name, served[name].status, served[name].value) is False

    return [name for name in answer.features if differs(name)]


def publish(world: World, event: Event, told: Told) -> Raw | None:
    """Publishes an event; None: it is refused, which happens to those further ahead than `future`, and to no other."""
    known_ms, topic = told.known_ms, event.topic
    ends = [log.end for log in world.kafka.partitions(topic)]
    try:
        world.publish("told", told.data, at=known_ms, id=None if event.id else told.id)
        refused = None
    except Refused as error:
        refused = error.reason
    assert refused == (Reason.FUTURE_TIME if told.time_ms - known_ms > event.future_ms else None)
    if refused is not None:
        return None
    (partition,) = [p for p, log in enumerate(world.kafka.partitions(topic)) if log.end > ends[p]]
    return Raw(topic, partition, ends[partition], known_ms, told.time_ms, told.id, told.data)
