"""Deletes versions of views that nobody reads any more: first from the catalogue, then, once services have followed, what they left.

A version stays while it is in force, and while a deployed version of a model reads it. Logs of fills that were broken off go too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiokafka.errors import UnknownTopicOrPartitionError, for_code

from tidemill.catalogue.definitions import Definitions, ViewVersion, project_of
from tidemill.clock import now_ms
from tidemill.errors import KafkaRefused
from tidemill.kafka.admin import admin
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import load_artifact
from tidemill.names import LogName, parse_log
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import fence_key, hash_tag
from tidemill.records import DeploymentRecord
from tidemill.redis.protocol import RedisClient
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import append_definitions, read_definitions
from tidemill.streams.deployments import Deployments
from tidemill.streams.topics import view_topic
from tidemill.streams.view_logs import existing_logs

FOLLOW_SECONDS = 10.0
"""How long services get to follow the catalogue before anything is deleted."""


@dataclass(frozen=True)
class Prunable:
    """What may go. `versions`: of the catalogue; `logs`: theirs, and those of fills that were broken off; `kept`: versions that are not in
    force, with the model version that reads each."""

    definitions: Definitions
    versions: list[ViewVersion]
    logs: list[LogName]
    kept: dict[str, str]


class Pruning:
    """Prunes one project."""

    def __init__(self, project: str, store: OfflineStore, kafka: KafkaSettings) -> None:
        self._project, self._store, self._kafka = project, store, kafka

    async def unread(self) -> Prunable:
        """What nobody reads now. Raises KafkaUnavailable, ArtifactError when the manifest of a deployed model cannot be read."""
        now = await read_definitions(self._kafka, self._project)
        project = project_of(now, self._project)
        views = {view.log: view for view in project.views.values()}
        readers = await self._readers() if now.number else {}
        for name, number in now.in_force.items():
            readers.pop((name, ViewKernel(views[now.version(name, number).log]).definition), None)  # they can read the one in force
        versions, kept = list[ViewVersion](), dict[str, str]()
        for found in now.views:
            if now.in_force.get(found.view.name) == found.version or found.handover is None:
                continue
            reader = readers.get((found.view.name, ViewKernel(views[found.log]).definition))
            if reader is None:
                versions.append(found)
            else:
                kept[views[found.log].name] = reader
        held = {found.log for found in now.views}
        broken = [log for log in await existing_logs(self._kafka, project) if log not in held and _is_broken(now, log)]
        return Prunable(now, versions, [*(found.log for found in versions), *sorted(broken)], kept)

    async def delete(self, unread: Prunable, link: RedisClient) -> None:
        """Takes the versions out of the catalogue, waits, and deletes topics, tables and keys. It can be killed and run again: what it had not
        deleted by then stays as logs that nobody reads.

        Raises CatalogueChanged, KafkaUnavailable, KafkaRefused, StoreUnavailable, StoreError, OfflineUnavailable.
        """
        if unread.versions:
            gone = {(found.view.name, found.version) for found in unread.versions}
            await append_definitions(self._kafka, self._project, unread.definitions.without(gone, now_ms()))
            await asyncio.sleep(FOLLOW_SECONDS)
        for log in unread.logs:
            await self._delete_keys(log, link)
            await asyncio.to_thread(self._store.drop, view_folder(log))
            await self._delete_topic(view_topic(self._project, log))

    async def _readers(self) -> dict[tuple[str, str], str]:
        """View and definition -> a deployed version of a model that reads it."""
        newest = dict[str, DeploymentRecord]()
        async with Deployments(self._kafka, self._project) as deployments:
            async for records in deployments.so_far():
                newest |= {record.model: record for record in records}
        found = dict[tuple[str, str], str]()
        for record in newest.values():
            for version in record.versions():
                manifest = load_artifact(self._store.url, version.artifact, version.sha256).manifest
                found |= dict.fromkeys(manifest.definitions.items(), f"{version.model} {version.version}")
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


def _is_broken(now: Definitions, log: LogName) -> bool:
    """Whether a log is that of a version which the catalogue had, and has no more. Version 1 may be older than the catalogue."""
    parsed = parse_log(log)
    return parsed is not None and 1 < parsed.version <= now.newest(parsed.view)
