"""Which versions of each model serve: follows the deployments topic and swaps versions without failing a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from tidemill.declarations import Model
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError, BadDeployment, NotDeployed, OfflineUnavailable, TidemillError, Unavailable, UnknownModel
from tidemill.kafka.topics import ensure_topics
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest, check_manifest, load_artifact, model_as_trained
from tidemill.models.engine import Engine, load_engine
from tidemill.models.inputs import ModelInputs
from tidemill.models.pipelines.courier import Terms
from tidemill.models.pipelines.packages import other_packages
from tidemill.models.roles import Lineup
from tidemill.records import DeployedVersion, DeploymentRecord
from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import EngineSettings, KafkaSettings
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.deployments import Deployments
from tidemill.streams.topics import deployments_topic, topic_specs
from tidemill_inference.loaded import LoadedModel, LoadedVersion

log = get_logger(__name__)

RELOAD_SECONDS = 30.0
LOAD_SECONDS = 60


class Registry:
    """The models that serve. Run `run` as a task; `get` never waits.

    When a version cannot be loaded, the others go on serving, and an earlier champion replaces a champion. Loading is tried again every 30
    seconds.
    """

    def __init__(
        self,
        project: str,
        settings: KafkaSettings,
        offline_root: str,
        on_change: Callable[[str | None], None],
        engine: EngineSettings,
    ) -> None:
        self._name = project
        self._project = Project(project)
        self._kernels: Mapping[str, ViewKernel] = {}
        self._used = asyncio.Event()
        self._changed = False
        self._history: list[DeploymentRecord] = []
        self._settings = settings
        self._offline_root = offline_root
        self._on_change = on_change
        self._engine = engine
        self._topic = deployments_topic(project)
        self._lineups: dict[str, Lineup[LoadedVersion]] = {}
        self._models: dict[str, LoadedModel] = {}
        self._read_whole = False
        self._loading: asyncio.Future[LoadedVersion] | None = None
        self.pulse = Pulse("deployments")

    def use(self, project: Project, kernels: Mapping[str, ViewKernel]) -> None:
        """Work by these declarations from now on; `kernels`: those of all views by name. Models that are new serve once they are loaded;
        versions that are loaded go on, and read what is in force where that stores what they were trained on."""
        self._project, self._kernels, self._changed = project, kernels, True
        self._used.set()
        for name in self._models.keys() & project.models.keys() if project.catalogue else ():
            self._move(name)

    @property
    def project(self) -> Project:
        """The declarations by which it works; without any before `use`."""
        return self._project

    @property
    def models(self) -> Mapping[str, LoadedModel]:
        """The models that serve now, by name."""
        return self._models

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """Model, version and reason, for each version of the newest deployments that could not be loaded."""
        return [(name, version, reason) for name, lineup in self._lineups.items() for version, reason in lineup.failures.items()]

    def get(self, name: str) -> LoadedModel:
        """A model as it serves now. Raises UnknownModel, NotDeployed, and Unavailable while models are being loaded or cannot be loaded."""
        model = self._models.get(name)
        if model is not None:
            return model
        if not self._used.is_set():
            raise Unavailable("the catalogue is still being read", mend="retry; see /health/ready")
        if name not in self._project.models:
            raise UnknownModel(name, list(self._project.models))
        if not self._read_whole:
            raise Unavailable("deployments are still being read", mend="retry; see /health/ready")
        reasons = [f"version {version} cannot be loaded: {reason}" for failed, version, reason in self.failures if failed == name]
        if not reasons:
            raise NotDeployed(name, self._project.models[name].making)
        raise Unavailable(f"model {name!r} {'; '.join(reasons)}")

    async def run(self) -> None:
        """Follow the deployments, for ever. While Kafka is away the loaded models go on serving."""
        await self._used.wait()
        try:
            await supervise(self._follow, self._away, [self.pulse], waited_for=(Exception,))
        finally:
            for model in self._models.values():
                _retire(model.versions, retired=True)

    def _away(self, error: Exception) -> None:
        log.warning("cannot read deployments", topic=self._topic, reason=str(error))
        if not self._read_whole:
            self._on_change(f"cannot read deployments: {error}")

    async def _follow(self) -> None:
        self.pulse.beat()
        await ensure_topics(self._settings, {self._topic: topic_specs(self._project)[self._topic]})
        async with Deployments(self._settings, self._name) as deployments:
            await self._follow_from_start(deployments)

    async def _follow_from_start(self, deployments: Deployments) -> None:
        """Read the whole history and load only the versions that the newest deployments need; then follow each new deployment."""
        history: list[DeploymentRecord] = []
        self._changed = False
        async for records in deployments.so_far():
            self.pulse.beat()
            history += records
        self._history = history
        await self._deploy(history)
        self._read_whole = True
        self._on_change(None)
        tried = monotonic()
        while True:
            self.pulse.beat()
            new = await deployments.next()
            self._history += new
            if self._changed:
                await self._declared_anew()
                tried = -RELOAD_SECONDS
            await self._deploy(new)
            if monotonic() - tried >= RELOAD_SECONDS:
                tried = monotonic()
                for name, lineup in self._lineups.items():
                    if lineup.failures:
                        lineup.retry()
                        await self._load_all(name)

    async def _declared_anew(self) -> None:
        """Release the models that are declared no more, and deploy those that are new."""
        self._changed = False
        for name in self._lineups.keys() - self._project.models.keys():
            del self._lineups[name]
            gone = self._models.get(name)
            self._models = {other: model for other, model in self._models.items() if other != name}
            _retire(gone.versions if gone else (), retired=True)
            for seat in gone.seats if gone else ():
                metrics.MODELS_LOADED.remove(name, seat.version)
            log.info("model is declared no more", model=name)
        await self._deploy([record for record in self._history if record.model not in self._lineups])

    def _move(self, name: str) -> None:
        """Let the loaded versions of a model read by the declarations of now. One that cannot goes on as it is."""
        lineup = self._lineups[name]
        for version in self._models[name].versions:
            with suppress(ArtifactError):
                moved = self._ready(version.manifest, version.engine, self._project.models[name])
                lineup.loaded(version.manifest.version, moved)
        self._models = {**self._models, name: LoadedModel(name, *lineup.serving())}

    async def _deploy(self, records: Sequence[DeploymentRecord]) -> None:
        """Bring each model to the newest of its records. A record with impossible versions or shares is logged and left out."""
        usable: dict[str, list[DeploymentRecord]] = {}
        for record in records:
            if record.model not in self._project.models:
                log.warning("deployment of a model that the project does not declare", model=record.model, version=record.version)
                continue
            try:
                record.versions()
            except BadDeployment as error:
                self._refused(record.model, record.version, str(error))
            else:
                usable.setdefault(record.model, []).append(record)
        for name, found in usable.items():
            self._lineups.setdefault(name, Lineup()).deploy(found)
            await self._load_all(name)

    async def _load_all(self, name: str) -> None:
        """Load the missing versions of a model one by one while the others serve. After each, switch to the versions that can serve."""
        lineup = self._lineups[name]
        self._switch(name)
        while (wanted := lineup.to_load()) is not None:
            try:
                lineup.loaded(wanted.version, await self._load_in_time(wanted))
            except Exception as error:  # a wrong artifact must not stop the versions that serve
                reason = str(error) if isinstance(error, TidemillError) else repr(error)
                self._refused(name, wanted.version, reason)
                lineup.failed(wanted.version, reason)
            self._switch(name)

    def _refused(self, name: str, version: str, reason: str) -> None:
        serving = self._models.get(name)
        log.error("deployment refused", model=name, version=version, reason=reason, serving=serving and serving.first.manifest.version)
        metrics.DEPLOYMENT_FAILURES.labels(name).inc()

    def _switch(self, name: str) -> None:
        """Let the loaded versions serve, by one assignment; release the others."""
        seats, versions = self._lineups[name].serving()
        before = self._models.get(name)
        if before is not None and before.seats == seats:
            return
        models = {other: model for other, model in self._models.items() if other != name}
        if seats:
            models[name] = LoadedModel(name, seats, versions)
        self._models = models
        _retire([version for version in before.versions if version not in versions.values()] if before else (), retired=True)
        _retire(versions.values(), retired=False)
        for seat in before.seats if before else ():
            if seat.version not in versions:
                metrics.MODELS_LOADED.remove(name, seat.version)
        for seat in seats:
            metrics.MODELS_LOADED.labels(name, seat.version).set(1)
            log.info(
                "model deployed", model=name, version=seat.version, role=seat.role, share=seat.share,
                before=before and before.first.manifest.version,
            )  # fmt: skip

    async def _load_in_time(self, wanted: DeployedVersion) -> LoadedVersion:
        """Load a version in a thread. Raises OfflineUnavailable when that takes too long; the next load begins after it ends."""
        if self._loading is None:
            loading = self._loading = asyncio.ensure_future(asyncio.to_thread(self._load, wanted))
            loading.add_done_callback(self._load_ended)
            for _ in range(LOAD_SECONDS):
                self.pulse.beat()
                if (await asyncio.wait({loading}, timeout=1))[0]:
                    return loading.result()
        raise OfflineUnavailable(f"a model could not be loaded within {LOAD_SECONDS} s", mend="see that the offline store answers")

    def _load_ended(self, ended: asyncio.Future[LoadedVersion]) -> None:
        self._loading = None  # so that no reference stays to a version that is released later
        if not ended.cancelled():
            ended.exception()  # take the error of a load that ended too late

    def _load(self, wanted: DeployedVersion) -> LoadedVersion:
        model = self._project.models[wanted.model]
        artifact = load_artifact(self._offline_root, wanted.artifact, wanted.sha256)
        manifest = artifact.manifest
        if (manifest.model, manifest.version) != (wanted.model, wanted.version):
            raise ArtifactError(f"{wanted.artifact} holds {manifest.model} {manifest.version}", mend="deploy what training saved")
        if not self._project.catalogue:
            check_manifest(manifest, model, self._kernels)
        terms = Terms(self._engine.seconds, self._engine.memory_mb, told=partial(_worker_lost, manifest.model, manifest.version))
        engine = load_engine(artifact, terms)
        if manifest.own_pipeline:
            others = [str(other) for other in other_packages(manifest.own_pipeline)]
            log.warning(
                "its own pipeline serves a version: slower than ONNX", model=manifest.model, version=manifest.version, others=others
            )
        return self._ready(manifest, engine, model)

    def _ready(self, manifest: Manifest, engine: Engine, model: Model) -> LoadedVersion:
        """A version with the views that it reads. Raises ArtifactError."""
        if self._project.catalogue:
            model, kernels = model_as_trained(manifest, model, self._kernels.values())
        else:
            kernels = [self._kernels[view.name] for view in model.views]
        return LoadedVersion(model, manifest, engine, ModelInputs(model, manifest.categories), kernels)


def _retire(versions: Iterable[LoadedVersion], *, retired: bool) -> None:
    """The workers of versions that leave end soon, whoever still has a reference; requests that have begun are answered."""
    for version in versions:
        if version.engine.worker is not None:
            version.engine.worker.retire(retired=retired)


def _worker_lost(model: str, version: str, kind: str, told: str) -> None:
    log.error("the worker of a version was lost; another is started", model=model, version=version, kind=kind, reason=told)
    metrics.ENGINE_FAILURES.labels(model, version, kind).inc()
