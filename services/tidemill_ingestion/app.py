"""Ingestion's wiring: topics, the routing of events, HTTP, health."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import cast

from fastapi import FastAPI

from tidemill.clock import now_ms
from tidemill.declarations.project import Project, load_project
from tidemill.errors import KafkaUnavailable, UnfilledLog, UnreadPartitions
from tidemill.routing.envelopes import Envelope
from tidemill.runtime import metrics
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import add_ops_routes, fastapi_app
from tidemill.runtime.logs import get_logger
from tidemill.runtime.routes import HotRoute, add_hot_route
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.supervise import supervise
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, everything_of
from tidemill.streams.view_logs import need_topics
from tidemill.streams.view_origins import tell_origins
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.http_api import MAX_BODY_BYTES, EventsEndpoint
from tidemill_ingestion.publisher import Publisher
from tidemill_ingestion.settings import IngestionSettings
from tidemill_ingestion.watch import IngestionWatch

log = get_logger(__name__)

STOP_SECONDS = 5.0


def build(settings: IngestionSettings) -> Service:
    """The service, not yet running. Raises ProjectError and DeclarationError."""
    parts = Ingestion(settings, load_project(settings.project.project))
    return Service(settings, parts.board, parts.app, parts.run, parts.pulses)


class Ingestion:
    """The connected parts of the service: `app` answers while `run` routes."""

    def __init__(self, settings: IngestionSettings, project: Project) -> None:
        self._settings = settings
        self._member = _member_of(settings)
        self._publisher = Publisher(settings.kafka)
        self._pulse = Pulse("routing")
        self.board = HealthBoard("kafka", "routing")
        self.pulses = [self._pulse]
        self._following = Following(settings.kafka, project, everything_of, self._waits, self.pulses)
        self._endpoint = EventsEndpoint(project, self._publisher, self.board)
        self.app = create_app(self.board, self._endpoint)

    async def run(self) -> None:
        """Wait for Kafka, connect the publisher; then route for ever by what is in force. Raises TopicMismatch and TopicRecreated."""
        try:
            await supervise(self._publisher.start, self._waits, self.pulses)
            await self._following.run(self._work)
        finally:
            await self._publisher.close()

    async def _work(self, now: InForce) -> None:
        """Wait until all logs are filled, create the topics; then route."""
        self._endpoint.use(now.project)
        await need_topics(self._settings.kafka, now.project, self._waits, self.pulses, waited_for=(KafkaUnavailable, UnfilledLog))
        if not now.project.catalogue:
            await supervise(partial(tell_origins, self._settings.kafka, now.project, now_ms()), self._waits, self.pulses)
        await supervise(partial(self._route, now), self._waits, self.pulses, (KafkaUnavailable, UnreadPartitions))

    async def _route(self, now: InForce) -> None:
        async with EventConsumer(self._settings.kafka, now.project, self._member, now.definitions) as consumer:
            try:
                await run_together(_routing(consumer), IngestionWatch(consumer, self.board, self._settings.kafka, self._pulse).run())
            except UnreadPartitions as error:
                log.error("joining the group as another member", reason=error.message, mend=error.mend)
                self._member = None  # a new member makes the group assign the partitions again
                raise

    def _waits(self, error: Exception) -> None:
        away = isinstance(error, KafkaUnavailable)
        self.board.report("kafka", str(error) if away else None)
        self.board.down("routing", "waiting for Kafka" if away else error)


def _member_of(settings: IngestionSettings) -> str | None:
    """The name under which this process joins the group again after a restart; None without a fixed port."""
    return f"{socket.gethostname()}-{settings.http.port}" if settings.http.port else None


async def _routing(consumer: EventConsumer) -> None:
    """Route. On cancellation, the wave in progress has STOP_SECONDS to finish."""
    routing = asyncio.create_task(consumer.run(), name="waves")
    try:
        await asyncio.shield(routing)
    finally:
        consumer.stop()
        await asyncio.wait({routing}, timeout=STOP_SECONDS)
        routing.cancel()
        await asyncio.gather(routing, return_exceptions=True)


def create_app(board: HealthBoard, endpoint: EventsEndpoint) -> FastAPI:
    """The HTTP side: `POST /events`, health and metrics."""
    app = fastapi_app(board, title="tidemill ingestion")
    route = HotRoute(endpoint.handle, _observe, limit_bytes=MAX_BODY_BYTES)
    add_hot_route(app, "/events", route, summary="Publish one event or a batch", request=cast(type, Envelope | list[Envelope]))
    add_ops_routes(app)
    return app


def _observe(_scope: Scope, status: int, seconds: float) -> None:
    metrics.INGESTION_REQUEST_SECONDS.observe(seconds)
    metrics.INGESTION_RESPONSES.labels(str(status)).inc()
