"""The routes of the Open Inference Protocol."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from tidemill.errors import TidemillError, Unavailable
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.routes import Answer, HotRoute, Observe, add_hot_route
from tidemill_inference.oip import InferBody, infer_answer, metadata, oip_error, parse_infer
from tidemill_inference.predictor import Predictor
from tidemill_inference.registry import Registry

_MODEL = "/v2/models/{model}"
_VERSION = _MODEL + "/versions/{version}"


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
        for paths, function in (
            (("/v2", "/v2/"), self.server),
            (("/v2/health/live",), self.live),
            (("/v2/health/ready",), self.ready),
            (("/v2/models",), self.models),
            ((_MODEL, _VERSION), self.model),
            ((f"{_MODEL}/ready", f"{_VERSION}/ready"), self.model_ready),
        ):
            for path in paths:
                app.get(path, summary=function.__doc__)(function)
        app.post("/v2/repository/index", summary=self.index.__doc__)(self.index)
        app.add_exception_handler(TidemillError, _explain)  # of the routes above; the hot ones explain their own

    async def infer(self, scope: Scope, body: bytes) -> Answer:
        """One infer request. Raises what the parser and the predictor raise."""
        path = scope["path_params"]
        loaded = self._registry.get(path["model"], path.get("version"))
        request = parse_infer(body, dict(scope["headers"]), loaded.manifest, loaded.engine.input_name)
        prediction_id, outputs = await self._predictor.by_tensor(loaded, list(request.matrix))
        return infer_answer(request, outputs, loaded.manifest, prediction_id)

    async def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return {"name": "tidemill", "version": _own_version(), "extensions": ["binary_tensor_data", "model_repository"]}

    async def live(self) -> dict[str, bool]:
        """Whether the process is alive."""
        if not self._board.alive:
            raise Unavailable("the process cannot go on", mend="see /health/live")
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
        """Metadata of a model."""
        loaded = self._registry.get(model, version)
        return metadata(loaded.manifest, loaded.engine.input_name)

    async def model_ready(self, model: str, version: str | None = None) -> dict[str, Any]:
        """Whether a model serves."""
        return {"name": self._registry.get(model, version).manifest.model, "ready": True}

    async def index(self) -> list[dict[str, str]]:
        """Every model that serves, and every newest version that cannot be loaded, with the reason."""
        serving = [
            {"name": name, "version": loaded.manifest.version, "state": "READY", "reason": ""}
            for name, loaded in self._registry.models.items()
        ]
        return serving + [
            {"name": name, "version": version, "state": "UNAVAILABLE", "reason": reason}
            for name, (version, reason) in self._registry.failures.items()
        ]


async def _explain(_request: Request, error: Exception) -> Response:
    status, body = oip_error(error)
    return Response(body, status, media_type="application/json")


def _own_version() -> str:
    try:
        return version("tidemill")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"
