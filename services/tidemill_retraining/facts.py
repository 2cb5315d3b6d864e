"""What is known of a model beside the topics: its stored versions, whether the project changed since, and how many outcomes are new."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import AsyncExitStack

import msgspec

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest, beside_artifact, stored_manifest
from tidemill.records import ResultRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.training.stages.keys import file_digests
from tidemill_retraining.logs import Logs
from tidemill_retraining.positions import StepReading
from tidemill_retraining.triggers import Known, open_alerts

CODE_SECONDS = 30.0


class _MadeWith(msgspec.Struct, frozen=True):
    """Of what a version was made with, the digests of the project's files."""

    project: dict[str, str]


class ModelFacts:
    """Of one project. `spec`: its folder, file or module. Close it at the end."""

    def __init__(self, project: Project, spec: str, kafka: KafkaSettings, offline_root: str) -> None:
        self._project, self._spec, self._kafka, self._root = project, spec, kafka, offline_root
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._code: dict[str, tuple[float, str, str]] = {}
        self._counting: dict[str, tuple[int, StepReading]] = {}
        self._rows: dict[str, int] = {}
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        """Stops reading."""
        await self._stack.aclose()

    async def manifest(self, model: str, version: str) -> Manifest:
        """Of a stored version. Raises NoSuchVersion, ArtifactError."""
        if (model, version) not in self._manifests:
            self._manifests[model, version] = (await asyncio.to_thread(stored_manifest, self._root, model, version))[0]
        return self._manifests[model, version]

    async def known(self, model: Model, logs: Logs) -> Known:
        """What is known of a model that has a champion. Raises KafkaUnavailable, and ArtifactError when the champion's manifest cannot be read."""
        manifest = await self.manifest(model.name, logs.deployments[model.name].version)
        changed, code = await self._changed(model, manifest)
        rows = await self._new_rows(model, manifest, logs)
        return Known(manifest.version, manifest.created, open_alerts(logs.alerts), rows, changed, code)

    async def _changed(self, model: Model, champion: Manifest) -> tuple[str, str]:
        """`compare`, now and then, where the model wants it."""
        if model.retrain is None or "code" not in model.retrain.on:
            return "", ""
        looked, changed, code = self._code.get(champion.version, (-CODE_SECONDS, "", ""))
        if time.monotonic() - looked >= CODE_SECONDS:
            changed, code = await asyncio.to_thread(self.compare, model, champion)
            self._code[champion.version] = time.monotonic(), changed, code
        return changed, code

    def compare(self, model: Model, champion: Manifest) -> tuple[str, str]:
        """In words what is not as a version was made with, and a name of what is now."""
        now = file_digests(self._spec)
        views = {view.plain_name: ViewKernel(view).definition for view in model.views}
        code = hashlib.sha256(msgspec.json.encode([sorted(now.items()), sorted(views.items())])).hexdigest()[:16]
        said = [f"view {name}" for name, definition in views.items() if champion.definitions.get(name) != definition]
        try:
            then = msgspec.json.decode(beside_artifact(self._root, champion, "made_with.json"), type=_MadeWith).project
        except (ArtifactError, msgspec.DecodeError):
            then = now  # made by an earlier tidemill, or elsewhere: nobody can know
        said += [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
        return (f"changed since {champion.version} was made: {', '.join(said)}" if said else ""), code

    async def _new_rows(self, model: Model, champion: Manifest, logs: Logs) -> int:
        """Outcomes since the last run began; before the first run, those that became known after the champion was made."""
        if model.retrain is None or model.retrain.rows is None:
            return 0
        begun = logs.history.results
        begin, reading = self._counting.get(model.name, (-1, None))
        if reading is None or begin != (begun or 0):
            reading = await self._stack.enter_async_context(
                StepReading(self._kafka, self._project.name, {"results": [begun or 0]}, ("results",))
            )
            self._counting[model.name], self._rows[model.name] = (begun or 0, reading), 0
        async for records in reading.news():
            self._rows[model.name] += sum(
                isinstance(record, ResultRecord)
                and record.model == model.name
                and record.outcome is not None
                and (begun is not None or record.known > champion.created)
                for record in records
            )
        return self._rows[model.name]
