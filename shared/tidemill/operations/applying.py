"""Puts the declarations of a project in force: plan, fill, hand over, wait, put in force.

It can be killed at any moment; the next one finds out from the catalogue how far it came. A version whose fill was broken off is given up,
and the next number takes its place. A version that was handed over is only waited for.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tidemill.archive.retention import ArchiveSettings
from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.catalogue.plan import CataloguePlan, Numbered, plan_of
from tidemill.clock import now_ms
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.offline.store import OfflineStore
from tidemill.operations.fill.around import Survey, surroundings, survey
from tidemill.operations.fill.folded import wait_folded
from tidemill.operations.fill.job import Fill, Filled, Phase
from tidemill.redis.protocol import RedisClient
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import append_definitions, read_definitions
from tidemill.streams.topics import topic_specs, view_topic


class Planned(NamedTuple):
    """A plan, the catalogue for which it was made, and what its versions are filled with."""

    before: Definitions
    plan: CataloguePlan
    surveys: dict[Numbered, Survey]


class Watcher(Protocol):
    """Hears how far it is."""

    def filling(self, version: ViewVersion, phase: Phase, done: int, total: int) -> None:
        """`done` of `total` events of a phase."""

    def filled(self, version: ViewVersion, done: Filled) -> None:
        """A version was handed over."""

    def waiting(self, view: FeatureView, online: int, offline: int, total: int) -> None:
        """The records of `total` that each store has."""


class Applying:
    """Applies one project. The catalogue changes by compare-and-swap: every method that writes raises CatalogueChanged when somebody else
    changed it meanwhile, and KafkaUnavailable, KafkaRefused, OfflineUnavailable."""

    def __init__(self, project: Project, store: OfflineStore, kafka: KafkaSettings, keeping: ArchiveSettings) -> None:
        self._project, self._store, self._kafka, self._keeping = project, store, kafka, keeping

    async def planned(self, before: Definitions | None = None) -> Planned:
        """The plan now. `before`: the catalogue, if it was read just now. Writes nothing. Raises DeclarationError when the project's declarations cannot follow those in force."""
        before = before or await read_definitions(self._kafka, self._project.name)
        around = await surroundings(self._project, self._store, self._kafka)
        plan = plan_of(before, self._project, now_ms(), around)
        meanwhile, surveys = project_of(plan.first, self._project.name), dict[Numbered, Survey]()
        for found in plan.fills:
            surveys[found.view.name, found.version] = await survey(
                meanwhile, found, self._store, self._kafka, self._keeping, plan.first.time
            )
        return Planned(before, plan, surveys)

    async def begin(self, planned: Planned) -> Definitions:
        """Makes the topics, and writes the first record. Each fill makes that of its log, which so is never there before a record names it."""
        name, plan = self._project.name, planned.plan
        filled = {view_topic(name, found.log) for found in plan.fills}
        specs = topic_specs(project_of(plan.first, name))
        await ensure_topics(self._kafka, {topic: spec for topic, spec in specs.items() if topic not in filled})
        if plan.first != planned.before:
            await append_definitions(self._kafka, name, plan.first)
        return plan.first

    async def fill(self, planned: Planned, now: Definitions, watcher: Watcher) -> Definitions:
        """Fills all versions, and hands each over. `now`: the catalogue after `begin`."""
        name, meanwhile = self._project.name, project_of(now, self._project.name)
        for found in planned.plan.fills:
            since_ms = planned.surveys[found.view.name, found.version].since_ms

            def told(phase: Phase, done: int, total: int, found: ViewVersion = found) -> None:
                watcher.filling(found, phase, done, total)

            done = await Fill(meanwhile, found, self._store, self._kafka, since_ms, told).run()
            now = now.handed_over(found.view.name, found.version, done.handover, now_ms(), done.loads)
            await append_definitions(self._kafka, name, now)
            watcher.filled(found, done)
        return now

    async def wait(self, planned: Planned, now: Definitions, link: RedisClient, watcher: Watcher) -> None:
        """Returns once both stores have the versions that come in force. It waits for ever for services that do not run.

        Raises StoreUnavailable and StoreError too.
        """
        views = {(view.plain_name, view.version): view for view in project_of(now, self._project.name).views.values()}
        for numbered in planned.plan.waits:
            view = views[numbered]
            held = await offset_ranges(self._kafka, view_topic(self._project.name, view.log))
            ends = {target.partition: found.end for target, found in held.items()}

            def told(online: int, offline: int, total: int, view: FeatureView = view) -> None:
                watcher.waiting(view, online, offline, total)

            await wait_folded(self._project.name, view, ends, self._store, link, told)

    async def finish(self, planned: Planned, now: Definitions) -> Definitions:
        """Writes the last record, and returns the catalogue then."""
        last = planned.plan.finished(now, now_ms())
        if last != now:
            await append_definitions(self._kafka, self._project.name, last)
        return last
