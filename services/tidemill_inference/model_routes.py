"""Which versions of a model serve, over HTTP: to see them, and to change them as `tidemill models` does."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from tidemill.errors import BadRequest, UnknownModel
from tidemill.models.pipelines.packages import other_packages
from tidemill.operations.deploying import Action, Deploying
from tidemill.records import DeploymentRecord, Role
from tidemill.runtime.routes import decode_body
from tidemill.runtime.settings import KafkaSettings
from tidemill_inference.loaded import LoadedVersion
from tidemill_inference.registry import Registry

ACTIONS: tuple[Action, ...] = get_args(Action)


class ActionBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /models/{model}/{action}. `version`: not for a rollback; `share`: of a canary, above 0 and at most 1."""

    version: str | None = None
    share: float | None = None


class SeatShown(msgspec.Struct):
    """A version, its role, and its share of the requests."""

    version: str
    role: Role
    share: float


class PipelineShown(msgspec.Struct):
    """A version that its own pipeline serves: that it is slower, whether its worker runs now, how often one was lost since the version was
    loaded here, and which packages are not those that wrote the pipeline."""

    engine: str
    running: bool
    failures: int
    other_packages: list[str]


class ModelShown(msgspec.Struct):
    """A model: the versions that serve here now, and why others that were deployed do not; `own_pipelines`: those that no ONNX file serves."""

    model: str
    serving: list[SeatShown]
    failures: dict[str, str]
    own_pipelines: dict[str, PipelineShown] | msgspec.UnsetType = msgspec.UNSET


class ModelRoutes:
    """Adds the routes to an application."""

    def __init__(self, registry: Registry, kafka: KafkaSettings, offline_root: str) -> None:
        self._registry, self._kafka, self._root = registry, kafka, offline_root

    def add(self, app: FastAPI) -> None:
        """`GET /models`, `GET /models/{model}`, `POST /models/{model}/{action}`."""
        app.get("/models", summary="Which versions of each model serve")(self.all)
        app.get("/models/{model}", summary="Which versions of a model serve")(self.one)
        app.post("/models/{model}/{action}", summary="Deploy, shadow, canary, promote, rollback or retire a version")(self.act)

    async def all(self) -> Response:
        """Every declared model."""
        return _json([self._shown(name) for name in self._registry.project.models])

    async def one(self, model: str) -> Response:
        """One model. Raises UnknownModel."""
        return _json(self._shown(self._known(model)))

    async def act(self, model: str, action: str, request: Request) -> Response:
        """Does what is asked, and answers with what serves from now on, on every instance once it has loaded it."""
        chosen = next((known for known in ACTIONS if known == action), None)
        if chosen is None:
            raise BadRequest(f"{action!r} is nothing that can be done with a model", mend=f"choose from {', '.join(ACTIONS)}")
        asked = decode_body(_decoder.decode, await request.body() or b"{}", 'send {"version": "..."}')
        deploying = Deploying(self._kafka, self._registry.project, self._root)
        return _json(seats_of(await deploying.act(self._known(model), chosen, asked.version, asked.share)))

    def _known(self, model: str) -> str:
        if model not in self._registry.project.models:
            raise UnknownModel(model, list(self._registry.project.models))
        return model

    def _shown(self, model: str) -> ModelShown:
        loaded = self._registry.models.get(model)
        seats = [_seat(*seat) for seat in loaded.seats] if loaded else []
        own = {version.manifest.version: shown for version in loaded.versions if (shown := _own_pipeline(version))} if loaded else {}
        failures = {version: reason for name, version, reason in self._registry.failures if name == model}
        return ModelShown(model, seats, failures, own or msgspec.UNSET)


def _own_pipeline(version: LoadedVersion) -> PipelineShown | None:
    made, worker = version.manifest.own_pipeline, version.engine.worker
    if made is None or worker is None:
        return None
    return PipelineShown("python engine, slower", worker.pid is not None, worker.failures, list(map(str, other_packages(made))))


def seats_of(record: DeploymentRecord) -> list[SeatShown]:
    """What a deployment states."""
    return [_seat(item.version, item.role, item.share) for item in record.versions()]


def _seat(version: str, role: Role, share: float) -> SeatShown:
    """Shares as people give them: what is left of 1 is no 0.44999999999999996."""
    return SeatShown(version, role, round(share, 9))


_decoder = msgspec.json.Decoder(ActionBody)


def _json(shown: Any) -> Response:
    return Response(msgspec.json.encode(shown), media_type="application/json")
