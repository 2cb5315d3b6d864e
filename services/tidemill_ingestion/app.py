"""Ingestion's wiring: topics, the routing of events, HTTP, health."""

from __future__ import annotations

import asyncio
import signal
from time import monotonic

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
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
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.events import Envelope
from tidemill_ingestion.http_api import MAX_BODY_BYTES, EventsEndpoint
from tidemill_ingestion.publisher import Publisher
from tidemill_ingestion.settings import IngestionSettings

log = get_logger(__name__)

PROBE_SECONDS = 1.0
PROBE_TIMEOUT_SECONDS = 3.0
SLOW_WAVE_SECONDS = 5.0
STOP_SECONDS = 5.0


class Ingestion:
    """The service: `run` returns after SIGTERM or SIGINT, and raises what it cannot recover from."""

    def __init__(self, settings: IngestionSettings, project: Project) -> None:
        self._settings = settings
        self._project = project
        self._board = HealthBoard("kafka", "routing")
        self._publisher = Publisher(settings.kafka)
        self._consumer: EventConsumer | None = None

    async def run(self) -> None:
        """Serve HTTP at once, route as soon as Kafka answers. Raises SettingsError, TopicMismatch and TopicRecreated."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
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
                async with EventConsumer(self._settings.kafka, self._project) as self._consumer:
                    await self._run(self._consumer)
                return
            except KafkaUnavailable as error:
                self._board.down("kafka", error.message)
                await asyncio.sleep(PROBE_SECONDS)

    async def _prepare(self) -> None:
        """Wait for Kafka, create the topics, connect the publisher."""
        while True:
            try:
                await wait_for_kafka(self._settings.kafka, PROBE_TIMEOUT_SECONDS)
                await ensure_topics(self._settings.kafka, topic_specs(self._project))
                await self._publisher.start()
                return
            except KafkaUnavailable as error:
                self._board.down("kafka", error.message)
                await asyncio.sleep(PROBE_SECONDS)

    async def _run(self, consumer: EventConsumer) -> None:
        tasks = {asyncio.create_task(consumer.run()), asyncio.create_task(self._probe(consumer))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()

    async def _probe(self, consumer: EventConsumer) -> None:
        """Ask Kafka for the ends of our partitions, every second: it tells whether Kafka answers and how far behind we are."""
        while True:
            assigned = consumer.kafka.assignment()
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                    self._report_lag(consumer, await consumer.kafka.end_offsets(assigned))
                self._board.up("kafka")
            except (KafkaError, TimeoutError) as error:
                self._board.down("kafka", f"Kafka at {self._settings.kafka.bootstrap_servers} does not answer: {type(error).__name__}")
            self._report_wave(consumer.waiting_since)
            await asyncio.sleep(PROBE_SECONDS)

    def _report_lag(self, consumer: EventConsumer, ends: dict[TopicPartition, int]) -> None:
        for partition, end in ends.items():
            position = consumer.positions.get(partition)
            if position is not None:
                metrics.INGESTION_LAG.labels(partition.topic, str(partition.partition)).set(max(0, end - position))

    def _report_wave(self, since: float | None) -> None:
        waited_seconds = 0.0 if since is None else monotonic() - since
        if waited_seconds > SLOW_WAVE_SECONDS:
            self._board.down("routing", f"a wave of records has not been acknowledged by Kafka for {waited_seconds:.0f} s")
        else:
            self._board.up("routing")


def create_app(project: Project, board: HealthBoard, publisher: Publisher) -> FastAPI:
    """The HTTP side: `POST /events`, health and metrics."""
    app = fastapi_app(board, title="tidemill ingestion")
    route = HotRoute(EventsEndpoint(project, publisher).handle, _observe, limit_bytes=MAX_BODY_BYTES)
    add_hot_route(app, "/events", route, summary="Publish one event or a batch", request=Envelope)
    add_ops_routes(app)
    return app


def _observe(_scope: Scope, status: int, seconds: float) -> None:
    metrics.INGESTION_REQUEST_SECONDS.observe(seconds)
    metrics.INGESTION_RESPONSES.labels(str(status)).inc()
