"""Ingestion's wiring: topics, the routing of events, HTTP, health."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from fastapi import FastAPI

from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, UnfilledLog
from tidemill.kafka.admin import wait_for_kafka
from tidemill.runtime import metrics
from tidemill.runtime.asgi import Scope
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import add_ops_routes, fastapi_app
from tidemill.runtime.logs import get_logger
from tidemill.runtime.routes import HotRoute, add_hot_route
from tidemill.runtime.service import run_together, run_workers
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.view_logs import ensure_logs
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.events import Envelope
from tidemill_ingestion.http_api import MAX_BODY_BYTES, EventsEndpoint
from tidemill_ingestion.publisher import Publisher
from tidemill_ingestion.settings import IngestionSettings
from tidemill_ingestion.watch import Watch

log = get_logger(__name__)

RETRY_SECONDS = 1.0
ANSWER_SECONDS = 3.0
STOP_SECONDS = 5.0


class Ingestion:
    """The service: `run` returns after SIGTERM or SIGINT, and raises what it cannot recover from."""

    def __init__(self, settings: IngestionSettings, project: Project) -> None:
        self._settings = settings
        self._project = project
        self._board = HealthBoard("kafka", "routing")
        self._publisher = Publisher(settings.kafka)
        self._pulse = Pulse("routing")

    async def run(self) -> None:
        """Serve HTTP at once, route as soon as Kafka answers. Raises SettingsError, TopicMismatch and TopicRecreated."""
        app = create_app(self._project, self._board, self._publisher)
        await run_workers(app, self._settings.http, self._route(), [self._pulse], self._board)

    async def _route(self) -> None:
        try:
            await self._prepare()
            while True:
                try:
                    async with EventConsumer(self._settings.kafka, self._project, self._member()) as consumer:
                        await self._run(consumer)
                except KafkaUnavailable as error:
                    await self._away(error)
        finally:
            await self._publisher.close()

    async def _prepare(self) -> None:
        """Wait for Kafka and for logs that are filled, create the topics, connect the publisher."""
        while True:
            try:
                await wait_for_kafka(self._settings.kafka, ANSWER_SECONDS)
                await ensure_logs(self._settings.kafka, self._project)
                await self._publisher.start()
                return
            except KafkaUnavailable as error:
                await self._away(error)
            except UnfilledLog as error:
                self._board.up("kafka")
                self._board.down("routing", str(error))
                self._pulse.beat()
                await asyncio.sleep(RETRY_SECONDS)

    def _member(self) -> str | None:
        """A name that this process keeps over restarts, so that it takes its partitions back at once instead of waiting for its own death
        to be noticed. Without a port of its own it has none.
        """
        http = self._settings.http
        return f"{socket.gethostname()}-{http.port}" if http.port else None

    async def _away(self, error: KafkaUnavailable) -> None:
        self._board.down("kafka", str(error))
        self._board.down("routing", "waiting for Kafka")
        self._pulse.beat()
        await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, consumer: EventConsumer) -> None:
        await run_together(_routing(consumer), Watch(consumer, self._board, self._settings.kafka, self._pulse).run())


async def _routing(consumer: EventConsumer) -> None:
    """Route; when that is cancelled the wave in progress may finish, for a while."""
    routing = asyncio.create_task(consumer.run(), name="waves")
    try:
        await asyncio.shield(routing)
    finally:
        consumer.stop()
        await asyncio.wait({routing}, timeout=STOP_SECONDS)
        routing.cancel()
        await asyncio.gather(routing, return_exceptions=True)


def create_app(project: Project, board: HealthBoard, publisher: Publisher) -> FastAPI:
    """The HTTP side: `POST /events`, health and metrics."""
    app = fastapi_app(board, title="tidemill ingestion")
    route = HotRoute(EventsEndpoint(project, publisher, board).handle, _observe, limit_bytes=MAX_BODY_BYTES)
    add_hot_route(app, "/events", route, summary="Publish one event or a batch", request=cast(type, Envelope | list[Envelope]))
    add_ops_routes(app)
    return app


def _observe(_scope: Scope, status: int, seconds: float) -> None:
    metrics.INGESTION_REQUEST_SECONDS.observe(seconds)
    metrics.INGESTION_RESPONSES.labels(str(status)).inc()
