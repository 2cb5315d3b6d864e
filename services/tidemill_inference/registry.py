"""Which version of each model serves: follows the deployments topic and swaps models without failing a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, OfflineUnavailable, TidemillError, Unavailable, UnknownModel
from tidemill.kafka.client import close_consumer, consumer
from tidemill.kafka.topics import ensure_topics
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest, check_manifest, load_artifact
from tidemill.models.engine import Engine
from tidemill.models.inputs import ModelInputs
from tidemill.records import DeploymentRecord, decoder
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.topics import deployments_topic, topic_specs

log = get_logger(__name__)

RETRY_SECONDS = 1.0
RELOAD_SECONDS = 30.0
LOAD_SECONDS = 60
_decode = decoder(DeploymentRecord).decode


@dataclass(frozen=True)
class LoadedModel:
    """A model version in memory, checked and warm."""

    model: Model
    engine: Engine
    inputs: ModelInputs

    @property
    def manifest(self) -> Manifest:
        """What the version says of itself."""
        return self.engine.manifest


class NotDeployed(UnknownModel):
    """The model is declared, but no version of it was ever deployed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.message, self.mend = f"no version of model {name!r} is deployed", f"run: tidemill train {name}"


class Registry:
    """The models that serve. Run `run` as a task; `get` never waits.

    A version that cannot be loaded changes nothing: the one before it goes on serving, and loading is tried again every 30 seconds.
    """

    def __init__(
        self,
        project: Project,
        kernels: Mapping[str, ViewKernel],
        settings: KafkaSettings,
        offline_root: str,
        on_change: Callable[[str | None], None],
    ) -> None:
        self._project = project
        self._kernels = kernels
        self._settings = settings
        self._offline_root = offline_root
        self._on_change = on_change
        self._topic = deployments_topic(project.name)
        self._loaded: dict[str, LoadedModel] = {}
        self._failed: dict[str, tuple[DeploymentRecord, str]] = {}
        self._read_whole = False
        self._loading: asyncio.Future[LoadedModel] | None = None
        self.pulse = Pulse("deployments")

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """The models that serve now, by name."""
        return self._loaded

    @property
    def failures(self) -> dict[str, tuple[str, str]]:
        """Model -> version and reason, where the newest deployment could not be loaded."""
        return {name: (record.version, reason) for name, (record, reason) in self._failed.items()}

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """The version that serves. Raises UnknownModel, NotDeployed, and Unavailable while models are still being loaded or broken."""
        loaded = self._loaded.get(name)
        if loaded is not None:
            if version is not None and version != loaded.manifest.version:
                raise UnknownModel(f"{name} version {version}", [f"{name} version {loaded.manifest.version}"])
            return loaded
        if name not in self._project.models:
            raise UnknownModel(name, list(self._project.models))
        if not self._read_whole:
            raise Unavailable("deployments are still being read", mend="retry; see /health/ready")
        if name in self._failed:
            record, reason = self._failed[name]
            raise Unavailable(f"model {name!r} version {record.version} cannot be loaded: {reason}")
        raise NotDeployed(name)

    async def run(self) -> None:
        """Follow the deployments, for ever. While Kafka is away the loaded models go on serving."""
        while True:
            self.pulse.beat()
            reader = consumer(self._settings)
            try:
                await ensure_topics(self._settings, {self._topic: topic_specs(self._project)[self._topic]})
                await reader.start()
                await self._follow(reader)
            except Exception as error:  # KafkaError, TidemillError, or what nobody thought of: begin anew rather than fall silent
                expected = isinstance(error, KafkaError | TidemillError)
                log.warning("cannot read deployments", topic=self._topic, reason=str(error), exc_info=None if expected else error)
                if not self._read_whole:
                    self._on_change(f"cannot read deployments: {error}")
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await close_consumer(reader)

    async def _follow(self, reader: AIOKafkaConsumer) -> None:
        partition = TopicPartition(self._topic, 0)
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        end = (await reader.end_offsets([partition]))[partition]
        history: dict[str, list[DeploymentRecord]] = {}
        while await reader.position(partition) < end:
            self.pulse.beat()
            for record in await _next(reader):
                history.setdefault(record.model, []).append(record)
        for records in history.values():
            await self._deploy_newest(records)
        self._read_whole = True
        self._on_change(None)
        tried = monotonic()
        while True:
            self.pulse.beat()
            for record in await _next(reader):
                await self._deploy(record)
            if monotonic() - tried < RELOAD_SECONDS:
                continue
            tried = monotonic()
            for record, _ in list(self._failed.values()):
                await self._deploy(record)

    async def _deploy_newest(self, records: list[DeploymentRecord]) -> None:
        """The newest version; while it cannot be loaded, the newest of the others that can."""
        await self._deploy(records[-1])
        if records[-1].model in self._failed:
            for older in reversed(records[:-1]):
                if await self._try(older) is None:
                    break

    async def _deploy(self, record: DeploymentRecord) -> None:
        if record.model not in self._project.models:
            log.warning("deployment of a model that the project does not declare", model=record.model, version=record.version)
            return
        reason = await self._try(record)
        if reason is None:
            self._failed.pop(record.model, None)
        else:
            self._failed[record.model] = (record, reason)

    async def _try(self, record: DeploymentRecord) -> str | None:
        """Load a version aside, then let it serve; or say why not."""
        serving = self._loaded.get(record.model)
        before = serving and serving.manifest.version
        if before == record.version:
            return None
        try:
            loaded = await self._load_in_time(record)
        except Exception as error:  # whatever is wrong with an artifact must not stop those that serve
            reason = str(error) if isinstance(error, TidemillError) else repr(error)
            log.error("deployment refused", model=record.model, version=record.version, reason=reason, serving=before)
            metrics.DEPLOYMENT_FAILURES.labels(record.model).inc()
            return reason
        self._loaded = {**self._loaded, record.model: loaded}
        if before is not None:
            metrics.MODELS_LOADED.remove(record.model, before)
        metrics.MODELS_LOADED.labels(record.model, record.version).set(1)
        log.info("model deployed", model=record.model, version=record.version, before=before)
        return None

    async def _load_in_time(self, record: DeploymentRecord) -> LoadedModel:
        """Load a version in a thread. Raises OfflineUnavailable when that takes too long: what serves goes on, and no other load begins before."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load, record))
            for _ in range(LOAD_SECONDS):
                self.pulse.beat()
                if (await asyncio.wait({self._loading}, timeout=1))[0]:
                    return self._loading.result()
            self._loading.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise OfflineUnavailable(f"a model could not be loaded within {LOAD_SECONDS} s", mend="see that the offline store answers")

    def _load(self, record: DeploymentRecord) -> LoadedModel:
        model = self._project.models[record.model]
        artifact = load_artifact(self._offline_root, record.artifact, record.sha256)
        manifest = artifact.manifest
        if (manifest.model, manifest.version) != (record.model, record.version):
            raise ArtifactError(f"{record.artifact} holds {manifest.model} {manifest.version}", mend="deploy what training saved")
        check_manifest(manifest, model, self._kernels)
        return LoadedModel(model, Engine(artifact), ModelInputs(model, manifest.categories))


async def _next(reader: AIOKafkaConsumer) -> list[DeploymentRecord]:
    """The next deployments, none when none came within a second; one that cannot be decoded is logged and left out."""
    found = []
    for messages in (await reader.getmany(timeout_ms=1000)).values():
        for message in messages:
            try:
                found.append(_decode(message.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.error("deployment cannot be read", offset=message.offset, reason=str(error))
    return found
