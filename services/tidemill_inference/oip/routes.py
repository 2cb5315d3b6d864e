"""The protocol's routes in an application. Their errors have the protocol's shape; those of other routes do not."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from tidemill.clock import now_ms
from tidemill.errors import TidemillError, Unavailable
from tidemill.models.contents import Contents
from tidemill.models.inputs import ModelInputs, Vector
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.routes import Answer, HotRoute, Observe, add_hot_route
from tidemill_inference.loaded import LoadedVersion
from tidemill_inference.messages import new_id
from tidemill_inference.oip.json_codec import InferBody
from tidemill_inference.oip.messages import InferAnswer, InferRequest, ModelSpec, metadata, model_spec, outputs_of
from tidemill_inference.oip.rest import infer_answer, oip_error, parse_infer
from tidemill_inference.predictor import Predictor
from tidemill_inference.registry import Registry

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


class _ProtocolRoute(APIRoute):
    """A route whose errors have the protocol's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that answers a request."""
        plain = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await plain(request)
            except TidemillError as error:
                status, body = oip_error(error)
                return Response(body, status, media_type="application/json")

        return answer


class ProtocolRoutes:
    """Adds the protocol to an application."""

    def __init__(self, board: HealthBoard, registry: Registry, predictor: Predictor) -> None:
        self._board = board
        self._registry = registry
        self._predictor = predictor

    def add(self, app: FastAPI, observe: Observe) -> None:
        """All routes, those of inference first."""
        infer = HotRoute(self.infer, observe, oip_error)
        for path in (_MODEL, _VERSION):
            add_hot_route(app, f"{path}/infer", infer, summary="Predictions by tensor (Open Inference Protocol)", request=InferBody)
        router = APIRouter(route_class=_ProtocolRoute)
        for paths, function in (
            (("/v2", "/v2/"), self.server),
            (("/v2/health/live",), self.live),
            (("/v2/health/ready",), self.ready),
            (("/v2/models",), self.models),
            ((_MODEL, _VERSION), self.model),
            ((f"{_MODEL}/ready", f"{_VERSION}/ready"), self.model_ready),
        ):
            for path in paths:
                router.get(path, summary=function.__doc__)(function)
        router.post("/v2/repository/index", summary=self.index.__doc__)(self.index)
        app.include_router(router)

    async def infer(self, scope: Scope, body: bytes) -> Answer:
        """One infer request. Raises what the parser and the predictor raise."""
        path, prediction_id = scope["path_params"], new_id(now_ms())
        answering = self._answering(path["model"], path.get("version"), prediction_id)
        manifest, input_name = answering.manifest, answering.engine.input_name
        spec = model_spec(manifest, input_name, [manifest.version])
        request = parse_infer(body, dict(scope["headers"]), spec)
        answers = await self._predictor.by_tensor(answering, *rows_of(request, answering.inputs, input_name), prediction_id)
        answer = InferAnswer(manifest.model, manifest.version, request.id, prediction_id, outputs_of(spec, answers))
        return infer_answer(request, answer)

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {"name": "tidemill", "version": _own_version(), "extensions": ["binary_tensor_data", "model_repository"]}

    async def live(self) -> dict[str, bool]:
        """Whether the process is alive. A process that cannot go on ends itself, so every answer is yes."""
        return {"live": True}

    async def ready(self) -> dict[str, bool]:
        """Whether requests can be answered."""
        if missing := self._board.missing:
            raise Unavailable("; ".join(f"{check}: {reason}" for check, reason in missing.items()), mend="see /health/ready")
        return {"live": True, "ready": True}

    async def models(self) -> dict[str, list[str]]:
        """Names of the models that serve."""
        return {"models": list(self._registry.models)}

    async def model(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Metadata of a model: of a version, or of its champion."""
        return metadata(self._spec(model, version))

    async def model_ready(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Whether a model serves."""
        return {"name": self._spec(model, version).model, "ready": True}

    async def index(self) -> list[dict[str, str]]:
        """Every version that serves, and every version of the newest deployments that cannot be loaded, with the reason."""
        serving = [
            {"name": name, "version": seat.version, "state": "READY", "reason": ""}
            for name, model in self._registry.models.items()
            for seat in model.seats
        ]
        return serving + [
            {"name": name, "version": version, "state": "UNAVAILABLE", "reason": reason}
            for name, version, reason in self._registry.failures
        ]

    def _answering(self, name: str, version: str | None, prediction_id: str) -> LoadedVersion:
        """The version named, or, a tensor having no entity, the one that the prediction's id chooses."""
        model = self._registry.get(name)
        return model.choose((), prediction_id) if version is None else model.version(version)

    def _spec(self, name: str, version: str | None) -> ModelSpec:
        model = self._registry.get(name)
        described = model.first if version is None else model.version(version)
        versions = [seat.version for seat in model.seats] if version is None else [version]
        return model_spec(described.manifest, described.engine.input_name, versions)


def rows_of(request: InferRequest, inputs: ModelInputs, input_name: str) -> tuple[list[Vector], list[Contents]]:
    """The rows of a request as a model takes them, and their contents."""
    if not inputs.content_names:
        return list(request.inputs[input_name]), []
    contents: list[Contents] = list(zip(*(request.contents[name] for name in inputs.content_names), strict=True))
    numbers = request.inputs.get(input_name, np.empty((len(contents), 0), np.float32))
    return [inputs.with_contents(row, of_row) for row, of_row in zip(numbers, contents, strict=True)], contents


def _own_version() -> str:
    try:
        return version("tidemill")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
