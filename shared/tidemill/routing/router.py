"""Routing: the records that one event becomes. A pure function of the project and the record read; it knows no Kafka and no clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from tidemill.declarations import Event, FeatureView, Model
from tidemill.declarations.expressions import number_of
from tidemill.declarations.project import Project
from tidemill.kernel.keys import entity_key, entity_of, partition_of
from tidemill.names import LogName
from tidemill.records import OutcomeRecord, ViewRecord, encode
from tidemill.routing.envelopes import Attributes, Headers
from tidemill.routing.events import Accepted, EventReader, moment
from tidemill.routing.opening import Frames, Opener, unframed
from tidemill.routing.refusals import PassedOver, Reason, Refused
from tidemill.routing.uses import uses_of
from tidemill.streams.dead_letters import dead_letter, letter_record
from tidemill.streams.topics import dead_letters_topic, outcomes_topic, topic_specs, view_topic

Routed = tuple[str, int, bytes | None, bytes]
"""Topic, partition, key and value of one record."""


class Source(NamedTuple):
    """The position of an event on its application's topic."""

    topic: str
    partition: int
    offset: int


Begins = Mapping[LogName, Mapping[int, int]]
"""The logs that get records -> for partitions of the event's topic, the offset of the first event that they get; others from the beginning."""


class Router:
    """Routes the events of a project. `begins`: to these logs only (None: to all, from the beginning); whatever it is, an event is accepted
    or refused by the whole project. `frames`: as in Opener. `refused` counts dead letters by (topic, reason). `unkeyed` counts, by the topic of the record, the
    records that were not made because a nullable key was null; `passed_over` those that were not made because the view's `where` was false
    or null. `no_event` counts records that are no event of the project, by (topic, why): see PassedOver.
    """

    def __init__(self, project: Project, begins: Begins | None = None, frames: Frames = unframed) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()
        self.unkeyed: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.no_event: Counter[tuple[str, str]] = Counter()
        self._routes = {
            event.name: _Route(project, event, self.unkeyed, self.passed_over, begins, frames) for event in project.events.values()
        }
        self._topics: dict[str, _Topic] = {}
        for event in project.events.values():
            of_topic = self._topics.setdefault(event.topic, _Topic(Opener(event, frames), {}))
            of_topic.routes[None if event.type is None else event.type.value] = self._routes[event.name]
        self._only = {topic: found.routes[None] for topic, found in self._topics.items() if None in found.routes}
        self._typed = {event.type.value: self._routes[event.name] for event in project.events.values() if event.type is not None}
        self._dead_letters = dead_letters_topic(project.name)
        self._dead_partitions = topic_specs(project)[self._dead_letters].partitions

    def route(
        self, topic: str, partition: int, offset: int, kafka_timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> list[Routed]:
        """The records of one event: one for each view and outcome that it feeds, or one dead letter; none for a record that is passed over.

        If the event lies too far ahead for a view, a dead letter for this view takes the place of its record. Raises RegistryUnavailable.
        """
        source, route = Source(topic, partition, offset), self._only.get(topic)
        try:
            if route is not None:
                event = route.reader.read(value, headers, kafka_timestamp_ms)
            else:
                of_topic = self._topics[topic]
                opened = of_topic.opener.open(value, headers)
                route = of_topic.routes.get(of_topic.opener.type_of(opened))
                if route is None:
                    raise PassedOver("type")
                event = route.reader.check_opened(opened, kafka_timestamp_ms)
            routed = route.records(event, source)
        except PassedOver as passed:
            self.no_event[topic, passed.why] += 1
            return []
        except Refused as refused:
            return [self._dead_letter(refused, source, kafka_timestamp_ms, key, value, event=None if route is None else route.name)]
        if event.time_ms > event.known_ms:
            too_far = route.too_far_ahead(event, source)
            routed += [
                self._dead_letter(_ahead(event, view), source, event.known_ms, key, value, view.name, route.name) for view in too_far
            ]
        return routed

    def forget_counts(self) -> None:
        """Counts from 0 again."""
        for counter in (self.refused, self.unkeyed, self.passed_over, self.no_event):
            counter.clear()

    def event_of(self, given: str) -> Event:
        """The event of a name, or of the type by which it is known on its topic. Raises Refused."""
        route = self._routes.get(given) or self._typed.get(given)
        if route is None:
            raise Refused(Reason.UNKNOWN_EVENT, f"no event {given!r}; there are {', '.join(self._routes)}", "type")
        return route.reader.event

    def admit(self, event_name: str, value: bytes, attributes: Attributes, published_ms: int) -> Accepted:
        """Check an event before it is written to its topic: its data, its attributes, and the records it would become. Raises Refused."""
        route = self._routes[self.event_of(event_name).name]
        try:
            accepted = route.reader.admit(value, attributes, published_ms)
        except PassedOver as passed:
            raise Refused(Reason.WRONG_EVENT, f"{event_name!r} passes over it: {_NO_EVENT[passed.why]}") from None
        route.records(accepted, Source("", 0, 0))
        return accepted

    def _dead_letter(
        self, refused: Refused, source: Source, known_ms: int, key: bytes | None, value: bytes | None,
        view: str | None = None, event: str | None = None,
    ) -> Routed:  # fmt: skip
        self.refused[source.topic, refused.reason] += 1
        letter = msgspec.structs.replace(dead_letter(refused.reason, refused.message, source, known_ms, key, value, view), event=event)
        cut_key, record, _ = letter_record(letter, key)
        return self._dead_letters, partition_of(cut_key or b"", self._dead_partitions), cut_key, record


_NO_EVENT = {
    "type": "its type is another one",
    "delete": 'it deletes a row (deletes="keep" takes those too)',
    "no_row": "it is no change of a row",
    "empty": "it is empty",
}


class _Topic(NamedTuple):
    """The events of a topic. `routes`: by their type; a topic with one type has None."""

    opener: Opener
    routes: dict[str | int | None, _Route]


class _Target(NamedTuple):
    """One of our topics. `get` takes the key of its records from the data of an event."""

    get: Callable[[Any], Any]
    topic: str
    partitions: int


class _ViewTarget(NamedTuple):
    """A view. `ahead_ms`: how far the time of an event may lie ahead of the moment when it became known; `begin`: see `Begins`."""

    view: FeatureView
    target: _Target
    ahead_ms: float
    begin: Mapping[int, int]

    def has(self, source: Source) -> bool:
        """Whether the log gets an event of this place."""
        return source.offset >= self.begin.get(source.partition, 0)


class _Fold(NamedTuple):
    """Views that fold the same fields of the same events at the same time: their records differ only in the key, so the value is encoded once
    for all of them. `where`: true of the data of these events (None: of all)."""

    where: Callable[[Any], float | None] | None
    values: Callable[[Any], Any]
    time_of: Callable[[int, int], int]
    targets: list[_ViewTarget]


class _Route:
    """The records that the events of one declaration become."""

    def __init__(
        self, project: Project, event: Event, unkeyed: Counter[str], passed_over: Counter[str], begins: Begins | None, frames: Frames
    ) -> None:
        views = [view for view in project.views_of(event) if begins is None or view.log in begins]
        specs = topic_specs(project)

        def target(fields: Sequence[str], topic: str) -> _Target:
            return _Target(entity_of(fields), topic, specs[topic].partitions)

        def view_target(view: FeatureView) -> _ViewTarget:
            limit_ms = math.inf if view.ahead_ms is None else view.ahead_ms
            return _ViewTarget(
                view, target(view.key.fields, view_topic(project.name, view.log)), limit_ms, (begins or {}).get(view.log, {})
            )

        self._folds = [_Fold(*_reading(same[0]), same[0].time_of, [view_target(view) for view in same]) for same in _alike(views)]
        self._moments = list(dict.fromkeys(model.at for model in project.models.values() if model.on is event))
        self._outcomes = [
            (model, model.outcome.reader(), target([model.outcome.subject], outcomes_topic(project.name)))
            for model in project.models.values()
            if model.outcome.source is event
        ]
        self.name = event.name
        self.reader = EventReader(event, uses_of(project, event), frames)
        self._unkeyed, self._passed_over = unkeyed, passed_over

    def records(self, event: Accepted, source: Source) -> list[Routed]:
        """The records of a good event, in a fixed order. Raises Refused when one of their keys or numbers is out of bounds."""
        data, time_ms, known_ms, event_id = event
        routed: list[Routed] = []
        ahead_ms = time_ms - known_ms
        for where, values, time_of, targets in self._folds:
            if where is not None and not where(data):
                self._passed_over.update(found.target.topic for found in targets)
                continue
            counts_ms = time_ms if ahead_ms <= 0 else time_of(time_ms, known_ms)
            value = encode(ViewRecord(counts_ms, known_ms, (source.partition, source.offset), values(data), event_id))
            for found in targets:
                target = found.target
                key = self._key(target, data)
                if key is not None and ahead_ms <= found.ahead_ms and (not found.begin or found.has(source)):
                    routed.append((target.topic, partition_of(key, target.partitions), key, value))
        declared = self.reader.event
        asked = {  # a training set starts from the event, so it must name a moment
            name: moment(getattr(data, name), self.reader.published[name], declared.earliest_ms, declared.unit(name) or "ms")
            for name in self._moments
        }
        for model, outcome_of, target in self._outcomes:
            asks = asked[model.at] if model.on is model.outcome.source else None
            self._add_outcome(routed, model, outcome_of, target, event, source, asks)
        return routed

    def too_far_ahead(self, event: Accepted, source: Source) -> list[FeatureView]:
        """The views that get no record of the event only because its time lies too far ahead for them."""
        ahead_ms = event.time_ms - event.known_ms
        targets = [of_view for fold in self._folds if fold.where is None or fold.where(event.data) for of_view in fold.targets]
        return [
            found.view for found in targets if ahead_ms > found.ahead_ms and found.target.get(event.data) is not None and found.has(source)
        ]

    def _key(self, target: _Target, data: Any) -> bytes | None:
        entity = target.get(data)
        if entity is None:
            self._unkeyed[target.topic] += 1
            return None
        return entity_key(entity)

    def _add_outcome(
        self,
        routed: list[Routed],
        model: Model,
        outcome_of: Callable[[Any], float | str | None],
        target: _Target,
        event: Accepted,
        source: Source,
        asks: int | None,
    ) -> None:
        key = self._key(target, event.data)
        value = outcome_of(event.data)
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(Reason.OUT_OF_RANGE, f"the outcome {model.outcome.value!r} is beyond a double", model.outcome.column.fields[0])
        if value is None or key is None:
            return
        record = OutcomeRecord(model.name, key.decode(), value, event.time_ms, event.known_ms, source, event.id, asks)
        routed.append((target.topic, partition_of(key, target.partitions), key, encode(record)))


def _ahead(event: Accepted, view: FeatureView) -> Refused:
    ahead = f"its time is {event.time_ms - event.known_ms} ms ahead of the moment it became known ({event.known_ms})"
    return Refused(Reason.FUTURE_TIME, f"{ahead}, more than {view.ahead} (ahead= of view {view.name!r})")


def _alike(views: list[FeatureView]) -> Iterable[list[FeatureView]]:
    """The views that fold the same fields of the same events at the same time, together."""
    groups: dict[tuple[str | None, tuple[str, ...], bool], list[FeatureView]] = {}
    for view in views:
        groups.setdefault((view.where, view.value_fields, view.waits), []).append(view)
    return groups.values()


def _reading(view: FeatureView) -> tuple[Callable[[Any], float | None] | None, Callable[[Any], Any]]:
    return None if view.condition is None else number_of(view.condition), _values_of(view.value_fields)


def _values_of(fields: tuple[str, ...]) -> Callable[[Any], Any]:
    """A function that takes the values of a view record from the data of an event, without the nulls."""
    values = msgspec.defstruct("Values", [(name, Any, None) for name in fields], omit_defaults=True, gc=False)
    if not fields:
        return lambda _data: values()
    if len(fields) == 1:
        get = attrgetter(fields[0])
        return lambda data: values(get(data))
    get_all = attrgetter(*fields)
    return lambda data: values(*get_all(data))
