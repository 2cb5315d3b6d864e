"""How a service follows the catalogue.

    following = Following(settings.kafka, project, views_of, tell, pulses)
    await following.run(work)              # `work` gets an InForce, and runs for ever: it is begun anew when what it uses changes

Before the first record of the catalogue a service works by the project's file, afterwards by the catalogue alone. While Kafka is away,
or a record cannot be understood, it goes on with what it knows.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import msgspec

from tidemill.catalogue.definitions import NOTHING, Definitions, project_of
from tidemill.declarations.project import Project
from tidemill.declarations.written import WrittenEvent, WrittenModel, WrittenView, write_event, write_model, write_view
from tidemill.errors import DeclarationError, KafkaUnavailable, TopicMismatch, TopicRecreated, WorkerEnded
from tidemill.kafka.topics import ensure_topics
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.service import cancelled, run_together
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.catalogue_log import Catalogue, read_definitions
from tidemill.streams.topics import catalogue_topic, topic_specs

log = get_logger(__name__)


class InForce(msgspec.Struct, frozen=True):
    """What a service works by. `definitions`: the catalogue, NOTHING before its first record; `project`: what it means, with those versions
    of views that were handed over. A version that is being filled is nobody's but the filler's."""

    project: Project
    definitions: Definitions = NOTHING


Uses = Callable[[InForce], object]
"""What a service uses, to be compared: it begins anew when that changes, and only then."""


def views_of(now: InForce) -> object:
    """The versions of views, with their events."""
    views = now.project.views.values()
    return [(view.name, view.version, _meaning(write_view(view)), _meaning(write_event(view.source))) for view in views]


def views_and_events_of(now: InForce) -> object:
    """The versions of views, and all events."""
    return views_of(now), [_meaning(write_event(event)) for event in now.project.events.values()]


def models_of(now: InForce) -> object:
    """The models, with the events of their outcomes."""
    return [(_meaning(write_model(model)), _meaning(write_event(model.outcome.source))) for model in now.project.models.values()]


def everything_of(now: InForce) -> object:
    """Views, events and models."""
    return views_and_events_of(now), models_of(now)


def every_record(now: InForce) -> object:
    """All that the catalogue says, descriptions too: for who only swaps a reference."""
    return now.definitions.number


def _meaning(written: WrittenEvent | WrittenView | WrittenModel) -> object:
    """All but the descriptions."""
    return msgspec.structs.replace(written, description="", **{"entity_description": ""} if isinstance(written, WrittenView) else {})


def in_force(definitions: Definitions, declared: Project) -> InForce:
    """What a service or a command works by. `declared`: the project's file; what is only Python, how models are trained and retrained, and the recordings,
    comes from there. Raises DeclarationError when records of the catalogue are damaged."""
    if not definitions.number:
        return InForce(declared)
    handed = tuple(found for found in definitions.views if found.handover is not None)
    project = project_of(msgspec.structs.replace(definitions, views=handed), declared.name)
    models = {
        name: dataclasses.replace(
            model,
            pipeline=declared.models[name].pipeline,
            training=declared.models[name].training,
            engine=declared.models[name].engine,
            online=declared.models[name].online,
            retrain=declared.models[name].retrain,
        )
        if name in declared.models
        else model
        for name, model in project.models.items()
    }
    return InForce(dataclasses.replace(project, models=models, recordings=declared.recordings, root=declared.root), definitions)


async def read_in_force(kafka: KafkaSettings, declared: Project) -> InForce:
    """What is in force now. Raises KafkaUnavailable, TopicMismatch, DeclarationError."""
    return in_force(await read_definitions(kafka, declared.name), declared)


class Following:
    """Follows the catalogue while `run` runs. `now`: what is in force, as far as this process has read; before it has, the project's file.

    `tell` gets the reason while the catalogue cannot be read for the first time, and `pulses` beat then.
    """

    def __init__(
        self, kafka: KafkaSettings, declared: Project, uses: Uses, tell: Callable[[Exception], None], pulses: Iterable[Pulse] = ()
    ) -> None:
        self._kafka, self._declared, self._uses, self._tell, self._pulses = kafka, declared, uses, tell, pulses
        self._changed = asyncio.Condition()
        self._read = False
        self._used: object = None  # by what is running
        self.now = InForce(declared)

    async def run(self, work: Callable[[InForce], Awaitable[object]]) -> None:
        """Runs `work` by what is in force. Raises the error that ends it, or WorkerEnded.

        It is cancelled when what it uses changes; then it is begun anew. It must have stopped in good order when it ends.
        """
        await run_together(self._follow(), self._work(work))

    async def _work(self, work: Callable[[InForce], Awaitable[object]]) -> None:
        await self._until(lambda: self._read)
        while True:
            now = self.now
            used = self._uses(now)
            log.info("working by", catalogue=now.definitions.number)
            running = asyncio.ensure_future(work(now))
            waiting = asyncio.create_task(self._until(partial(self._other_than, used)))
            try:
                await asyncio.sleep(0)  # it begins
                self._used = used
                self._tell_number()
                await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
                changed = waiting.done()
            finally:
                await cancelled(running, waiting)
            if changed:
                continue
            if not running.cancelled():
                running.result()
            raise WorkerEnded("the work of this service")

    def _other_than(self, used: object) -> bool:
        return self._uses(self.now) != used

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(holds)

    async def _follow(self) -> None:
        topic = catalogue_topic(self._declared.name)
        specs = {topic: topic_specs(self._declared)[topic]}
        waited_for = (KafkaUnavailable, TopicMismatch, TopicRecreated, DeclarationError)
        await supervise(partial(ensure_topics, self._kafka, specs), self._away, self._pulses, waited_for)
        await supervise(self._read_on, self._away, self._pulses, waited_for)

    async def _read_on(self) -> None:
        async with Catalogue(self._kafka, self._declared.name) as catalogue:
            await self._take(catalogue.now)
            while True:
                if await catalogue.changed():
                    await self._take(catalogue.now)

    async def _take(self, definitions: Definitions) -> None:
        if definitions.number < self.now.definitions.number:
            known = self.now.definitions.number
            raise TopicRecreated(
                f"the catalogue was read up to record {known}, and ends at record {definitions.number} now",
                mend="restore its topic; until then this process works by what it read",
            )
        async with self._changed:
            self.now, self._read = in_force(definitions, self._declared), True
            self._tell_number()
            self._changed.notify_all()

    def _tell_number(self) -> None:
        """Tell others by which record the work runs: the newest one, unless it is about to begin anew."""
        if self._used is not None and not self._other_than(self._used):
            metrics.CATALOGUE_RECORDS.set(self.now.definitions.number)

    def _away(self, error: Exception) -> None:
        if self._read:
            log.warning("the catalogue cannot be followed, trying again", reason=str(error))
        else:
            self._tell(error)
