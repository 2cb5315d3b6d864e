"""Changing which versions of a model serve: by a record on the deployments topic, so every instance agrees, and a restart finds the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from tidemill.clock import now_ms
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, DeploymentChanged
from tidemill.kafka.topics import ensure_topics
from tidemill.models import changes
from tidemill.models.artifact import folder_of, stored_manifest
from tidemill.models.changes import StoredVersion
from tidemill.records import DeploymentRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import Deployments, append_deployment
from tidemill.streams.topics import deployments_topic, topic_specs

APPEND_SECONDS = 30.0

Action = Literal["deploy", "shadow", "canary", "promote", "rollback", "retire"]
Change = Callable[[Sequence[DeploymentRecord]], DeploymentRecord]


class Deploying:
    """The deployments of a project, to look at and to change. Every method raises KafkaUnavailable."""

    def __init__(self, kafka: KafkaSettings, project: Project, offline_root: str) -> None:
        self._kafka, self._project, self._root = kafka, project, offline_root

    async def history(self) -> dict[str, list[DeploymentRecord]]:
        """All deployments by model, oldest first."""
        topic = deployments_topic(self._project.name)
        await ensure_topics(self._kafka, {topic: topic_specs(self._project)[topic]})
        return await self._read()

    async def _read(self) -> dict[str, list[DeploymentRecord]]:
        """The same of a topic that is there."""
        found: dict[str, list[DeploymentRecord]] = {}
        async with Deployments(self._kafka, self._project.name) as deployments:
            async for records in deployments.so_far():
                for record in records:
                    found.setdefault(record.model, []).append(record)
        return found

    async def act(
        self, model: str, action: Action, version: str | None = None, share: float | None = None, *, instead: str | None = None,
        keep: bool = False,
    ) -> DeploymentRecord:  # fmt: skip
        """Does one thing with a model's versions, and returns what serves from now on. `instead`: the version in whose place a shadow or a challenger comes;
        `keep`: the champion that another one replaces is a shadow from now on.

        Raises NoSuchVersion, BadRequest for a share that is none, DeploymentRefused, DeploymentChanged.
        """
        change = await asyncio.to_thread(self._change, model, action, version, share, instead, keep)
        before = (await self.history()).get(model, [])
        record = change(before)
        await append_deployment(self._kafka, self._project.name, record, APPEND_SECONDS)
        after = (await self._read()).get(model, [])
        place = len(before)
        if after[place] != record:
            raise DeploymentChanged(model, f"somebody else deployed {after[place].version} at the same time", "see: tidemill models list")
        return record

    def _change(self, model: str, action: Action, version: str | None, share: float | None, instead: str | None, keep: bool) -> Change:
        """What an action makes of the deployments of a model."""
        at_ms = now_ms()
        if action == "rollback":
            return lambda history: changes.roll_back(history, at_ms)
        if version is None:
            raise BadRequest(f"{action} needs a version", mend=f"name one: {model}@VERSION")
        if action == "retire":
            return lambda history: changes.retire(_last(history), model, version, at_ms)
        stored = self._stored(model, version)
        if action == "deploy":
            return lambda _: changes.deploy(stored, at_ms)
        if action == "promote":
            return lambda history: changes.promote(_last(history), stored, at_ms, keep=keep)
        if action == "canary" and (share is None or not 0 < share <= 1):
            raise BadRequest(f"a challenger's share is above 0 and at most 1, not {share}", mend="give 0.05 for 5 %")
        return lambda history: changes.beside(_last(history), stored, share if action == "canary" else None, at_ms, instead)

    def _stored(self, model: str, version: str) -> StoredVersion:
        manifest, sha256 = stored_manifest(self._root, model, version)
        return StoredVersion(model, version, folder_of(model, version), sha256, manifest.metrics)


def _last(history: Sequence[DeploymentRecord]) -> DeploymentRecord | None:
    return history[-1] if history else None
