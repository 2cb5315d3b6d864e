"""A project that runs in memory: events in, features and predictions out, at any moment, without servers and without waiting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tidemill.declarations import Event
from tidemill.declarations.project import Project, load_project
from tidemill.errors import Rebuilding, UnknownEvent, UnknownView
from tidemill.kernel.keys import asked_key, partition_of
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.online.reader import OnlineReader
from tidemill.online.writer import OnlineWriter
from tidemill.records import DeadLetterRecord, decoder, encode
from tidemill.routing.envelopes import Attributes
from tidemill.routing.events import moment
from tidemill.routing.refusals import Refused
from tidemill.routing.router import Begins, Router
from tidemill.streams.topics import dead_letters_topic, topic_specs, view_topic
from tidemill.testing.folding import Folder
from tidemill.testing.log import MemoryKafka, TopicRecord
from tidemill.testing.running import at_once
from tidemill.testing.store import MemoryRedis
from tidemill.testing.values import FeatureValue, shown
from tidemill.timestamps import EARLIEST_MS, parse_time_ms

if TYPE_CHECKING:
    from tidemill.catalogue.definitions import Definitions
    from tidemill.catalogue.plan import Change
    from tidemill.models.artifact import Artifact, Manifest
    from tidemill.testing.models import Models, Prediction
    from tidemill.testing.offline import Offline
    from tidemill.training.dataset import TrainingSet

Moment = int | str
"""Epoch ms, or RFC 3339 with an offset."""


class World:
    """A project, and the twins of the servers that it runs on: `kafka` has its topics, `redis` its online store.

    An event takes the same way as in production: the router checks it and writes its records to topics, the kernel folds the records, and
    the store applies them only at its fence. `now_ms`: the latest moment when an event became known, epoch ms.
    """

    def __init__(self, project: Project) -> None:
        self.now_ms = 0
        self.redis = MemoryRedis()
        self.kafka = MemoryKafka({})
        self._letters = dead_letters_topic(project.name)
        self._use(project)

    def _use(self, project: Project, begins: Begins | None = None) -> None:
        """Works by these declarations from now on."""
        self.project = project
        self._earliest_ms = min((event.earliest_ms for event in project.events.values()), default=EARLIEST_MS)
        for topic, spec in topic_specs(project).items():
            self.kafka.create(topic, spec.partitions)
        self._router = Router(project, begins)
        self._kernels = {name: ViewKernel(view) for name, view in project.views.items()}
        self._reader = OnlineReader(self.redis, project.name, {kernel.view.log: kernel for kernel in self._kernels.values()})
        writer = OnlineWriter(self.redis, project.name)
        self._folders = {
            view_topic(project.name, view.log): Folder(view, self._kernels[name], writer) for name, view in project.views.items()
        }
        for topic, folder in self._folders.items():
            for partition in range(len(self.kafka.partitions(topic))):
                at_once(folder.begin(partition))
        if "_models" in self.__dict__:
            self._models.use(project, self._kernels)

    @classmethod
    def load(cls, spec: str | Path) -> Self:
        """The world of a project, from its folder, its file, or the name of a module. Raises ProjectError, DeclarationError."""
        return cls(load_project(spec))

    def publish(self, event: str, data: Mapping[str, Any], *, at: Moment | None = None, id: str | None = None) -> None:
        """Checks an event as `POST /events` does, and applies it. Raises Refused (an InvalidEvent), with `reason` and `field`.

        `at`: when the event became known; by default its own time, but never before `now_ms`. `id`: the CloudEvents id.
        """
        value = json.dumps(data).encode()
        known_ms = self._known(event, data) if at is None else parse_time_ms(at, self._earliest_ms)
        accepted = self._router.admit(event, value, Attributes(event, id), known_ms)
        headers = [*self.project.events[event].headers] + ([] if id is None else [("ce_id", id.encode())])
        key = None if accepted.id is None else accepted.id.encode()
        self._happen(self.project.events[event], key, value, headers, known_ms)

    def receive(self, event: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] = (), *, at: Moment | None = None) -> None:
        """Applies any record of an event's topic. A record that cannot be used becomes a dead letter. Raises UnknownEvent."""
        if event not in self.project.events:
            raise UnknownEvent(event, list(self.project.events))
        self._happen(self.project.events[event], None, value, headers, self.now_ms if at is None else parse_time_ms(at, self._earliest_ms))

    def apply(self, project: Project) -> list[Change]:
        """Puts changed declarations in force, as `tidemill apply` does, and returns the changes. A new version of a view has all events so far
        at once; older versions go on, as `features("view@v1", ...)`. Needs the extra `lake`.

        The project's own name does not count. Raises DeclarationError when the declarations cannot follow those in force; nothing changes then.
        """
        from tidemill.testing.applying import applied  # noqa: PLC0415 - needs an extra that events and features do not

        lake = self._offline.archived(self.project)
        done = applied(self._definitions, replace(project, name=self.project.name), self.kafka, lake, self.now_ms)
        self._definitions = done.definitions
        self._use(done.project, done.definitions.begins)
        for topic, records in done.logs.items():
            for partition, found in records.items():
                for key, value in found:
                    self._fold(self.kafka.append(topic, partition, key, value, self.now_ms))
        return done.changes

    @property
    def dead_letters(self) -> list[DeadLetterRecord]:
        """The dead letters, in order: messages that were not used, and why."""
        return [decoder(DeadLetterRecord).decode(record.value or b"") for record in self.kafka.partitions(self._letters)[0].records]

    def features(self, view: str, entity: str | int | Sequence[str | int] | None, *, at: Moment | None = None) -> dict[str, FeatureValue]:
        """The features of an entity by name, at a moment (by default `now_ms`), from all events so far. Of a key of several fields, `entity`
        has the value of each. Raises UnknownView.

        Raises Rebuilding when the store has lost the view (`world.redis.data.clear()`); feature serving answers INVALID then.
        """
        declared = self.project.named_views.get(view)
        if declared is None:
            raise UnknownView(view, list(self.project.views))
        time_ms = self._moment(at)
        (served,) = self._served(
            [self._kernels[declared.name]], [asked_key([entity] if entity is None or isinstance(entity, str | int) else entity)], time_ms
        )
        names = [feature.name for feature in declared.served]
        return {name: shown(served, place, time_ms) for place, name in enumerate(names)}

    def training_set(self, model: str, *, until: Moment | None = None) -> TrainingSet:
        """The examples of `tidemill train`, from all that was known before a moment (None: everything). Needs the extra `inference`.

        Raises UnknownModel, and TidemillError when there are no examples.
        """
        return self._models.training_set(model, self._until(until))

    def train(self, model: str, *, until: Moment | None = None) -> Manifest:
        """Trains the model as `tidemill train` does; the new version predicts from then on. Needs the extra `training`.

        Raises the errors of `training_set`, and TidemillError when the pipeline cannot be fitted, or not converted exactly.
        """
        return self._models.train(model, self._until(until))

    def deploy(self, artifact: Artifact) -> None:
        """Makes a stored version predict (see `load_artifact`). Needs the extra `inference`. Raises ArtifactError, UnknownModel."""
        self._models.deploy(artifact)

    def predict(self, model: str, entities: Mapping[str, Any], *, at: Moment | None = None) -> Prediction:
        """The answer of `POST /predict/{model}` for these entities and request values at a moment. Raises UnknownModel, BadRequest."""
        return self._models.predict(model, entities, self._moment(at))

    @cached_property
    def _definitions(self) -> Definitions:
        """The catalogue. A world's first project is one that was applied before any event came."""
        from tidemill.testing.applying import applied_first  # noqa: PLC0415 - needs an extra that events and features do not

        return applied_first(self.project)

    @cached_property
    def _offline(self) -> Offline:
        from tidemill.testing.offline import Offline  # noqa: PLC0415 - needs an extra that events and features do not

        return Offline(self.kafka)

    @cached_property
    def _models(self) -> Models:
        from tidemill.testing.models import Models  # noqa: PLC0415 - needs extras that events and features do not

        models = Models(lambda: self._offline.archived(self.project), self._served)
        models.use(self.project, self._kernels)
        return models

    def _served(self, kernels: Sequence[ViewKernel], keys: Sequence[bytes | None], time_ms: int) -> list[Served]:
        """The served features of some views, each for its entity (None: no entity), from one read of the store. Raises Rebuilding."""
        wanted = [(kernel.view, key) for kernel, key in zip(kernels, keys, strict=True) if key is not None]
        found = at_once(self._reader.read([(view.log, key) for view, key in wanted]))
        if rebuilding := sorted({view.name for (view, _), item in zip(wanted, found, strict=True) if item.rebuilding}):
            raise Rebuilding(rebuilding)
        stored, served = iter(found), list[Served]()
        for kernel, key in zip(kernels, keys, strict=True):
            item = None if key is None else next(stored)
            reading = None if item is None or item.value is None else kernel.read(item.value, time_ms, item.since_ms)
            served.append(serve(kernel.view, reading, time_ms))
        return served

    def _happen(self, event: Event, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]], known_ms: int) -> None:
        """Writes one record to an event's topic, routes it, and folds the records that it becomes."""
        partition = partition_of(key or value or b"", len(self.kafka.partitions(event.topic)))
        source = self.kafka.append(event.topic, partition, key, value, known_ms, headers)
        self.now_ms = max(self.now_ms, known_ms)
        routed = self._router.route(event.topic, partition, source.offset, known_ms, key, value, list(headers))
        for topic, number, record_key, record_value in routed:
            record = self.kafka.append(topic, number, record_key, record_value, known_ms)
            if topic in self._folders:
                self._fold(record)

    def _fold(self, record: TopicRecord) -> None:
        for letter in at_once(self._folders[record.topic].fold(record.partition, [record])):
            self.kafka.append(self._letters, 0, record.key, encode(letter), record.timestamp)

    def _known(self, event: str, data: Mapping[str, Any]) -> int:
        """An event's own time, or `now_ms` if that is later or the time cannot be read; `admit` says later what is wrong with it."""
        declared = self.project.events.get(event)
        try:
            own = None if declared is None else declared.value(declared.time, data)
            return max(self.now_ms, moment(own, "time", self._earliest_ms)) if isinstance(own, int | str) else self.now_ms
        except (Refused, ValueError):
            return max(self.now_ms, EARLIEST_MS)

    def _moment(self, at: Moment | None) -> int:
        return self.now_ms if at is None else parse_time_ms(at, self._earliest_ms)

    def _until(self, until: Moment | None) -> int:
        return self.now_ms + 1 if until is None else parse_time_ms(until, self._earliest_ms)
