"""Ingestion's wiring: topics, the routing of events, HTTP, health."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import cast

from fastapi import FastAPI

from tidemill import metrics
from tidemill.errors import KafkaUnavailable
from tidemill.health import HealthBoard, Scope
from tidemill.hot import HotRoute, add_hot_route
from tidemill.http import HttpServer, add_ops_routes, fastapi_app
from tidemill.kafka import wait_for_kafka
from tidemill.kafka_topics import ensure_topics
from tidemill.logs import get_logger
from tidemill.project import Project
from tidemill.topics import topic_specs
from tidemill.watchdog import Watchdog
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.events import Envelope
from tidemill_ingestion.http_api import MAX_BODY_BYTES, EventsEndpoint
from tidemill_ingestion.publisher import Publisher
from tidemill_ingestion.settings import IngestionSettings
from tidemill_ingestion.watch import Watch

log = get_logger(__name__)

RETRY_SECONDS = 1.0
ANSWER_SECONDS = 3.0
PATIENCE_SECONDS = 60
STOP_SECONDS = 5.0


class Ingestion:
    """The service: `run` returns after SIGTERM or SIGINT, and raises what it cannot recover from."""

    def __init__(self, settings: IngestionSettings, project: Project) -> None:
        self._settings = settings
        self._project = project
        self._board = HealthBoard("kafka", "routing")
        self._publisher = Publisher(settings.kafka)
        self._watchdog = Watchdog(PATIENCE_SECONDS)
        self._consumer: EventConsumer | None = None

    async def run(self) -> None:
        """Serve HTTP at once, route as soon as Kafka answers. Raises SettingsError, TopicMismatch and TopicRecreated."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._watchdog.start()
        routing = asyncio.create_task(self._route(), name="routing")
        try:
            async with HttpServer(create_app(self._project, self._board, self._publisher), self._settings.http):
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait({routing, stopped}, return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
                await self._end(routing)
        finally:
            routing.cancel()
            await asyncio.wait({routing})
            await self._publisher.close()
            self._watchdog.stop()
        if not routing.cancelled():
            routing.result()

    async def _end(self, routing: asyncio.Task[None]) -> None:
        """Let the wave in progress finish, for a while."""
        if self._consumer is not None:
            self._consumer.stop()
            await asyncio.wait({routing}, timeout=STOP_SECONDS)

    async def _route(self) -> None:
        await self._prepare()
        while True:
            try:
                async with EventConsumer(self._settings.kafka, self._project, self._member()) as self._consumer:
                    await self._run(self._consumer)
                return
            except KafkaUnavailable as error:
                await self._away(error)

    async def _prepare(self) -> None:
        """Wait for Kafka, create the topics, connect the publisher."""
        while True:
            try:
                await wait_for_kafka(self._settings.kafka, ANSWER_SECONDS)
                await ensure_topics(self._settings.kafka, topic_specs(self._project))
                await self._publisher.start()
                return
            except KafkaUnavailable as error:
                await self._away(error)

    def _member(self) -> str | None:
        """A name that this process keeps over restarts, so that it takes its partitions back at once instead of waiting for its own death
        to be noticed. Without a port of its own it has none.
        """
        http = self._settings.http
        return f"{socket.gethostname()}-{http.port}" if http.port else None

    async def _away(self, error: KafkaUnavailable) -> None:
        self._board.down("kafka", str(error))
        self._board.down("routing", "waiting for Kafka")
        self._watchdog.beat()
        await asyncio.sleep(RETRY_SECONDS)

    async def _run(self, consumer: EventConsumer) -> None:
        watch = Watch(consumer, self._board, self._settings.kafka, self._watchdog)
        tasks = {asyncio.create_task(consumer.run()), asyncio.create_task(watch.run())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()


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
