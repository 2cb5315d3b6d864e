"""A generated project on the twins, judged by SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
from tests.verify.archive import Raw, archived
from tests.verify.projects import START_MS, Generated, Question, Told

from tidemill.declarations import FeatureView
from tidemill.testing import Reason, Refused, World
from tidemill.testing.values import FeatureValue
from tidemill.verify.compare import agrees
from tidemill.verify.sql import AskedMoment, Found, SqlAnswer, SqlView


class Difference(NamedTuple):
    """A feature that is served with another value or state than SQL gives."""

    view: str
    question: Question
    feature: str
    served: FeatureValue
    sql: Found

    def __repr__(self) -> str:
        """For a person."""
        asked = f"{self.view} of {self.question.entity!r} at {self.question.at_ms - START_MS} ms after {self.question.after} events"
        return f"\n{asked}: {self.feature} is {self.served.value!r} {self.served.status}, by SQL {self.sql.value!r} {self.sql.state}"


class Played(NamedTuple):
    """A project that has run. `archive`: its events; `answers`: view, question, what was served, and before which moment all had become known."""

    world: World
    archive: pa.Table
    answers: list[tuple[FeatureView, Question, dict[str, FeatureValue], int]]


def played(made: Generated) -> Played:
    """Runs a project, and asks its questions on the way."""
    world, raws, answers = World(made.project), list[Raw](), list[tuple[FeatureView, Question, dict[str, FeatureValue], int]]()
    for number, told in enumerate(made.stream, 1):
        raw = publish(world, made, told, number)
        if raw is not None:
            raws.append(raw)
        if number == len(made.stream) or made.stream[number].known_ms > told.known_ms:
            for view, question in questions(made, number):
                answers.append((view, question, world.features(view.name, question.entity, at=question.at_ms), told.known_ms + 1))
    return Played(world, archived(made.event, raws, made.no_column), answers)


def differences(made: Generated, run: Played | None = None) -> list[Difference]:
    """Runs a project, if it has not run, and compares its answers with SQL."""
    _, archive, asked = run or played(made)
    found = []
    for view in made.project.views.values():
        mine = [(question, served, known) for of_view, question, served, known in asked if of_view is view]
        if not mine:
            continue
        sql = SqlView(view, archive, threads=1)
        answers = sql.answers([AskedMoment(str(question.entity), question.at_ms, known) for question, _, known in mine])
        sql.close()
        for (question, served, _), answer in zip(mine, answers, strict=True):
            found += [Difference(view.name, question, name, served[name], answer.features[name]) for name in differing(served, answer)]
    return found


def differing(served: dict[str, FeatureValue], answer: SqlAnswer) -> list[str]:
    """The features that differ."""
    return [name for name, value in served.items() if agrees(answer, name, value.status, value.value) is False]


def questions(made: Generated, number: int) -> Iterator[tuple[FeatureView, Question]]:
    """Those that are asked after so many events."""
    for question in made.questions:
        if question.after == number:
            for view in made.project.views.values():
                if isinstance(question.entity, str) == (view.key.field == "shop"):
                    yield view, question


def publish(world: World, made: Generated, told: Told, number: int) -> Raw | None:
    """Publishes an event; None: it is refused, which happens to those further ahead than `future`, and to no other."""
    known_ms, topic = told.known_ms, made.event.topic
    ends = [log.end for log in world.kafka.partitions(topic)]
    try:
        world.publish("told", told.data, at=known_ms, id=None if made.event.id else told.id)
        refused = None
    except Refused as error:
        refused = error.reason
    assert refused == (Reason.FUTURE_TIME if told.time_ms - known_ms > made.event.future_ms else None)
    if refused is not None:
        return None
    (partition,) = [p for p, log in enumerate(world.kafka.partitions(topic)) if log.end > ends[p]]
    return Raw(
        topic,
        partition,
        ends[partition],
        known_ms,
        told.time_ms,
        told.id,
        told.data,
        made.later if number <= made.undeclared else frozenset(),
    )
