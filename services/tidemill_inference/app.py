"""Inference's application: routes, Redis, Kafka, models, health."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import FastAPI

from tidemill.clock import now_ms
from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError
from tidemill.kernel.view import ViewKernel
from tidemill.online.reader import OnlineReader
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime import metrics
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import add_ops_routes, fastapi_app
from tidemill.runtime.routes import Answer, HotRoute, add_hot_route
from tidemill.runtime.service import Service, run_together
from tidemill.streams.following import Following, InForce, everything_of
from tidemill.streams.topics import predictions_topic, shadows_topic, topic_specs
from tidemill_inference.explaining import Explaining
from tidemill_inference.first_answers import FirstAnswers
from tidemill_inference.messages import PredictBody, PredictionAnswer, PredictRequest, answer_body, parse_predict
from tidemill_inference.model_routes import ModelRoutes
from tidemill_inference.oip.routes import ProtocolRoutes
from tidemill_inference.past_routes import PastRoutes
from tidemill_inference.prediction_log import PredictionLog
from tidemill_inference.predictor import Predictor
from tidemill_inference.registry import Registry
from tidemill_inference.settings import InferenceSettings
from tidemill_inference.shadows import Shadows

REDIS_TIMEOUT_SECONDS = 0.5
CHECKS = ("redis", "kafka", "deployments")


def build(settings: InferenceSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    parts = Inference(load_project(settings.project.project), settings)
    return Service(settings, parts.board, parts.app, parts.run, parts.pulses)


class Inference:
    """The parts of the service, wired: `app` answers while `run` runs. Ready when Redis and Kafka answer and the deployments were read."""

    def __init__(self, project: Project, settings: InferenceSettings) -> None:
        self._settings = settings
        self.board = HealthBoard(*CHECKS)
        report = self.board.report
        topic = predictions_topic(project.name)
        self._link = redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, on_change=partial(report, "redis"))
        self._log = PredictionLog(settings.kafka, topic, topic_specs(project)[topic], partial(report, "kafka"))
        shadows = shadows_topic(project.name)
        self._shadow_log = PredictionLog(settings.kafka, shadows, topic_specs(project)[shadows], lambda _: None)
        self._registry = Registry(project.name, settings.kafka, settings.offline.root, partial(report, "deployments"), settings.engine)
        nothing = OnlineReader(self._link, project.name, {})
        self._shadows = Shadows(nothing, self._shadow_log)
        self._explaining = Explaining(settings.offline.root)
        self._predictor = Predictor(nothing, FirstAnswers(self._link, project.name), self._log, self._shadows, self._explaining)
        self._following = Following(settings.kafka, project, everything_of, partial(self.board.down, "deployments"))
        self.pulses = [self._log.pulse, self._registry.pulse]
        self.app = self._app()

    def _app(self) -> FastAPI:
        app = fastapi_app(self.board, title="tidemill inference")
        predict = HotRoute(self.predict, self.observe)
        add_hot_route(app, "/predict/{model}", predict, summary="Predictions by entity", request=PredictBody)
        ProtocolRoutes(self.board, self._registry, self._predictor).add(app, self.observe)
        ModelRoutes(self._registry, self._settings.kafka, self._settings.offline.root).add(app)
        PastRoutes(self._settings.offline.root, self._explaining).add(app)
        add_ops_routes(app)
        return app

    async def run(self) -> None:
        """Keep the connections, write the log and follow the deployments, for ever."""
        async with self._link:
            logs = self._log.run(), self._shadow_log.run(), self._shadows.run()
            await run_together(*logs, self._registry.run(), keep_asking(self._link), self._following.run(self._use))

    async def _use(self, now: InForce) -> None:
        """Work by what is in force, until cancelled. Requests that have begun end by the logs by which they began."""
        kernels = {name: ViewKernel(view) for name, view in now.project.views.items()}
        before = self._loaded()
        self._registry.use(now.project, kernels)
        by_log: dict[str, ViewKernel] = {kernel.view.log: kernel for kernel in (*before, *self._loaded(), *kernels.values())}
        self._predictor.reader = self._shadows.reader = OnlineReader(self._link, now.project.name, by_log)
        await asyncio.Event().wait()

    def _loaded(self) -> list[ViewKernel]:
        """The kernels of the versions in memory."""
        return [kernel for model in self._registry.models.values() for version in model.versions for kernel in version.kernels]

    async def predict(self, scope: Scope, body: bytes) -> Answer:
        """POST /predict/{model}. Raises what the parser, the registry and the predictor raise."""
        name = scope["path_params"]["model"]
        self._registry.get(name)
        request = parse_predict(body, now_ms())
        return Answer(answer_body(request, await self.ask(name, request)))

    async def ask(self, model: str, request: PredictRequest) -> list[PredictionAnswer | TidemillError]:
        """One result for each instance, in the log. Raises what the registry and the predictor raise."""
        return await self._predictor.by_entity(self._registry.get(model), request)

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Counts an answer; names that are no model of the project share one label."""
        name = scope["path_params"]["model"]
        model = name if name in self._registry.project.models else "unknown"
        metrics.INFERENCE_REQUEST_SECONDS.labels(model).observe(seconds)
        metrics.INFERENCE_RESPONSES.labels(model, str(status)).inc()
