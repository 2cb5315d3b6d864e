"""Deletes versions of views that nobody reads any more: first from the catalogue, then, once services have followed, what they left.

A version stays while it is in force, or about to be, while a deployed version of a model reads it, and while a logged prediction that read
it may wait for its outcome. Logs that the catalogue does not have go too: those of fills that were broken off, and those that no record ever
named, since their `apply` ended before its record, or lost the race. An `apply` that is just under way keeps its log: it takes a number above
every number that its view has had, and a log goes only if its number is not above these.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
from aiokafka.errors import UnknownTopicOrPartitionError, for_code

from tidemill.catalogue.definitions import Definitions, ViewVersion, newest_of, project_of
from tidemill.clock import Deadline, now_ms
from tidemill.declarations import FeatureView
from tidemill.declarations.project import Project
from tidemill.errors import KafkaRefused, TidemillError
from tidemill.kafka.admin import admin
from tidemill.kafka.topics import offset_ranges
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import load_artifact
from tidemill.names import LogName, LogParts, parse_log
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.online.keys import fence_key, hash_tag
from tidemill.operations.followers import wait_followed
from tidemill.records import DeploymentRecord
from tidemill.redis.protocol import RedisClient
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import append_definitions, read_history
from tidemill.streams.deployments import Deployments
from tidemill.streams.topics import predictions_topic, view_topic
from tidemill.streams.view_logs import logs_with_topics
from tidemill.timestamps import rfc3339

LOGGED_SECONDS = 60.0
_POLL_SECONDS = 0.2
_LOOKS, _LOOK_SECONDS = 100, 0.1
_WAITS = "it was handed over, and tidemill apply has not put it in force yet"

Readers = Mapping[str, Sequence[str]]
"""Who reads, in words, by what is read."""


@dataclass(frozen=True)
class Prunable:
    """What may go. `versions`: of the catalogue; `logs`: theirs, and those that the catalogue has no more; `kept`: versions that are not in
    force, with who reads each."""

    definitions: Definitions
    versions: list[ViewVersion]
    logs: list[LogName]
    kept: Readers


class Pruning:
    """Prunes one project. `urls`: service -> its address; `all_known`: no others run."""

    def __init__(self, project: str, store: OfflineStore, kafka: KafkaSettings, urls: Mapping[str, str], *, all_known: bool) -> None:
        self._project, self._store, self._kafka = project, store, kafka
        self._urls, self._all_known = urls, all_known

    async def unread(self, wait_seconds: float = LOGGED_SECONDS) -> Prunable:
        """What nobody reads now. Raises TidemillError when predictions are not in their table within `wait_seconds`, KafkaUnavailable,
        OfflineUnavailable, ArtifactError when the manifest of a deployed model cannot be read."""
        history = await read_history(self._kafka, self._project)
        now = newest_of(history)
        project = project_of(now, self._project)
        views = {view.log: view for view in project.views.values()}
        deployed = await self._deployed(project) if now.number else {}
        await self._wait_logged(wait_seconds)
        predicted = await asyncio.to_thread(self._predicted, project)
        versions, kept = list[ViewVersion](), dict[str, Sequence[str]]()
        for found in now.views:
            if now.in_force.get(found.view.name) == found.version or found.handover is None:
                continue
            waits = [_WAITS] if _about_to_be_in_force(found, history) else []
            readers = [*waits, *deployed.get(_pinned(views[found.log]), ()), *predicted.get(found.log, ())]
            if readers:
                kept[views[found.log].name] = readers
            else:
                versions.append(found)
        return Prunable(now, versions, [*(found.log for found in versions), *await self._left(history)], kept)

    async def delete(self, unread: Prunable, link: RedisClient, note: Callable[[str], None] = lambda _: None) -> None:
        """Takes the versions out of the catalogue, waits until services have followed, and deletes topics, tables and keys. It can be killed
        and run again: what it had not deleted by then is deleted by the next one. `note` gets a line when it cannot know who has followed.

        Raises CatalogueChanged, NotFollowed, KafkaUnavailable, KafkaRefused, StoreUnavailable, StoreError, OfflineUnavailable.
        """
        number = unread.definitions.number
        if unread.versions:
            last = unread.definitions.without({(found.view.name, found.version) for found in unread.versions}, now_ms())
            await append_definitions(self._kafka, self._project, last)
            number = last.number
        await wait_followed(self._urls, number, note, all_known=self._all_known)
        for log in unread.logs:
            await self._delete_keys(log, link)
            await asyncio.to_thread(self._store.drop, view_folder(log))
            await self._delete_topic(view_topic(self._project, log))

    async def _left(self, history: Sequence[Definitions]) -> list[LogName]:
        """The logs that the catalogue does not have, and that no `apply` will take."""
        now = newest_of(history)
        named, held = {found.log for record in history for found in record.views}, {found.log for found in now.views}
        logs = await logs_with_topics(self._kafka, self._project)
        return sorted(log for log, parts in logs.items() if log not in held and (log in named or _passed(now, parts)))

    async def _deployed(self, project: Project) -> dict[tuple[str, str], list[str]]:
        """View and definition -> the deployed versions of models that read it. One that the version in force has too is not there: inference
        reads that."""
        newest = dict[str, DeploymentRecord]()
        async with Deployments(self._kafka, self._project) as deployments:
            async for records in deployments.so_far():
                newest |= {record.model: record for record in records if record.model in project.models}
        found = defaultdict[tuple[str, str], list[str]](list)
        for record in newest.values():
            for version in record.versions():
                manifest = load_artifact(self._store.url, version.artifact, version.sha256).manifest
                for pinned in manifest.definitions.items():
                    found[pinned].append(f"{version.role} {version.version} of model {version.model} reads it")
        for view in project.views.values():
            if view.name == view.plain_name:
                found.pop(_pinned(view), None)
        return found

    async def _wait_logged(self, seconds: float) -> None:
        """Returns once the table of predictions has what their topic has now: one that it lacks may have read any version."""
        held = await offset_ranges(self._kafka, predictions_topic(self._project))
        ends = {counter_name(*target): found.end for target, found in held.items()}
        deadline = Deadline(seconds)
        while not await asyncio.to_thread(self._logged, ends):
            if deadline.expired:
                raise TidemillError(
                    f"not all predictions are in their table within {seconds:g} s, and they may have read any version",
                    mend="see that prediction logging runs (tidemill status), then run this again",
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _logged(self, ends: Mapping[str, int]) -> bool:
        table = self._store.find("predictions")
        return all((0 if table is None else table.counter(name)) >= end for name, end in ends.items())

    def _predicted(self, project: Project) -> dict[LogName, list[str]]:
        """Log -> the models whose predictions read it and may wait for their outcome."""
        found, snapshot = defaultdict[LogName, list[str]](list), self._store.find("predictions")
        waits = {model.name: model.outcome.wait.within_ms for model in project.models.values()}
        if snapshot is None or not waits:
            return found
        now = now_ms()
        recent = snapshot.scan(
            ["model", "served", "stamp"], pc.field("served") > now - max(waits.values()), among=("model", waits), order=()
        )
        for model, within_ms in waits.items():
            rows = recent.filter((pc.field("model") == model) & (pc.field("served") > now - within_ms))
            for view in project.views.values():
                read = rows.filter(pc.match_substring(rows["stamp"], f'"{view.log}"'))
                if len(read):
                    until = rfc3339(pc.max(read["served"]).as_py() + within_ms)
                    found[view.log].append(f"{len(read):,} predictions of model {model} read it, and wait for outcomes until {until}")
        return found

    async def _delete_keys(self, log: LogName, link: RedisClient) -> None:
        parsed = parse_log(log)
        assert parsed is not None
        for partition in range(parsed.partitions):
            await link.call("UNLINK", fence_key(self._project, log, partition))
            async for keys in link.scan(hash_tag(self._project, log, partition) + b"*"):
                if keys:
                    await link.call("UNLINK", *keys)

    async def _delete_topic(self, topic: str) -> None:
        async with admin(self._kafka) as client:
            for _, code in (await client.delete_topics([topic])).topic_error_codes:
                error = for_code(code)
                if code and error is not UnknownTopicOrPartitionError:
                    raise KafkaRefused(
                        f"topic {topic} cannot be deleted: {error.__name__}", mend="delete it by hand, or look at your rights"
                    )
            for _ in range(_LOOKS):  # brokers hear of it after the answer: whoever looks next shall not see the topic
                if topic not in await client.list_topics():
                    return
                await asyncio.sleep(_LOOK_SECONDS)


def _about_to_be_in_force(found: ViewVersion, history: Sequence[Definitions]) -> bool:
    """Whether a version that was handed over may be waited for by its `apply`: no other followed it, and it was never in force."""
    name, version = found.view.name, found.version
    return version == history[-1].newest(name) and all(record.in_force.get(name) != version for record in history)


def _passed(now: Definitions, parts: LogParts) -> bool:
    """Whether no `apply` can take the number of a log any more. Those of version 1 may be older than the catalogue: see `tidemill repartition`."""
    return 1 < parts.version <= now.newest(parts.view)


def _pinned(view: FeatureView) -> tuple[str, str]:
    """A view's name and definition, as a manifest names them."""
    return view.plain_name, ViewKernel(view).definition
