"""Inference's application: routes, Redis, Kafka, models, health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from tidemill import metrics
from tidemill.clock import now_ms
from tidemill.health import HealthBoard, Scope
from tidemill.hot import Answer, HotRoute, add_hot_route
from tidemill.http import add_ops_routes, fastapi_app
from tidemill.kernel import ViewKernel
from tidemill.online_reader import OnlineReader
from tidemill.project import Project
from tidemill.redis_client import redis_client
from tidemill.topics import predictions_topic, topic_specs
from tidemill_inference.first_answers import FirstAnswers
from tidemill_inference.messages import PredictBody, answer_body, parse_predict
from tidemill_inference.prediction_log import PredictionLog
from tidemill_inference.predictor import Predictor
from tidemill_inference.registry import Registry
from tidemill_inference.settings import InferenceSettings
from tidemill_inference.v2 import ProtocolRoutes

REDIS_TIMEOUT_SECONDS = 0.5
CHECKS = ("redis", "kafka", "deployments")


class Inference:
    """The parts of the service, wired. `run` keeps its background work going."""

    def __init__(self, project: Project, settings: InferenceSettings, board: HealthBoard) -> None:
        self._project = project
        kernels = {name: ViewKernel(view) for name, view in project.views.items()}
        topic = predictions_topic(project.name)
        self._link = redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, on_change=partial(board.report, "redis"))
        self._log = PredictionLog(settings.kafka, topic, topic_specs(project)[topic], partial(board.report, "kafka"))
        self.registry = Registry(project, kernels, settings.kafka, settings.offline.root, partial(board.report, "deployments"))
        reader = OnlineReader(self._link, project.name, kernels)
        self.predictor = Predictor(kernels, reader, FirstAnswers(self._link, project.name), self._log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connections and followers, from start to stop of the application."""
        async with self._link:
            tasks = [asyncio.create_task(self._log.run(), name="prediction-log"), asyncio.create_task(self.registry.run(), name="registry")]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.gather(*tasks)

    async def predict(self, scope: Scope, body: bytes) -> Answer:
        """POST /predict/{model}. Raises what the parser, the registry and the predictor raise."""
        loaded = self.registry.get(scope["path_params"]["model"])
        request = parse_predict(body, now_ms())
        return Answer(answer_body(request, await self.predictor.by_entity(loaded, request)))

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answer; names that are no model of the project share one label."""
        name = scope["path_params"]["model"]
        model = name if name in self._project.models else "unknown"
        metrics.INFERENCE_REQUEST_SECONDS.labels(model).observe(seconds)
        metrics.INFERENCE_RESPONSES.labels(model, str(status)).inc()


def create_app(project: Project, settings: InferenceSettings) -> FastAPI:
    """The service's ASGI application. Ready when Redis and Kafka answer and the deployments were read."""
    board = HealthBoard(*CHECKS)
    inference = Inference(project, settings, board)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with inference.running():
            yield

    app = fastapi_app(board, title="tidemill inference", lifespan=lifespan)
    predict = HotRoute(inference.predict, inference.observe)
    add_hot_route(app, "/predict/{model}", predict, summary="Predictions by entity", request=PredictBody)
    ProtocolRoutes(board, inference.registry, inference.predictor).add(app, inference.observe)
    add_ops_routes(app)
    return app
