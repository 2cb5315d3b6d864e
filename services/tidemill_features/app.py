"""Wiring: health and metrics over HTTP, the link to Redis, the Faust app, and the watch over its progress."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack
from functools import partial

from tidemill.batched import batched_app
from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.health import HealthBoard, OpsApp
from tidemill.http import HttpServer
from tidemill.kafka_topics import ensure_topics
from tidemill.online_store import OnlineWriter
from tidemill.project import Project
from tidemill.redis_client import redis_client
from tidemill.settings import HttpSettings, KafkaSettings, RedisSettings
from tidemill.topics import dead_letters_topic, topic_specs
from tidemill.watchdog import Watchdog
from tidemill_features.dead_letters import DeadLetterTopic
from tidemill_features.settings import FeaturesSettings
from tidemill_features.watch import Watch
from tidemill_features.worker import Worker

REDIS_TIMEOUT_SECONDS = 3.0
RETRY_SECONDS = 1.0
STOP_SECONDS = 8.0  # Faust may wait for a Kafka that is away


async def serve(project: Project, http: HttpSettings, kafka: KafkaSettings, redis: RedisSettings, features: FeaturesSettings) -> None:
    """Run until SIGINT or SIGTERM. Raises what ended the Faust app, if something did."""
    board = HealthBoard("kafka", "redis", "partitions")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(HttpServer(OpsApp(board), http))
        link = await stack.enter_async_context(redis_client(redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis")))
        letters = await stack.enter_async_context(DeadLetterTopic(kafka, dead_letters_topic(project.name)))
        worker = Worker(project, OnlineWriter(link, project.name), features.cache_mb << 20, letters)
        running = asyncio.create_task(_run(project, worker, board, kafka, features))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _run(project: Project, worker: Worker, board: HealthBoard, kafka: KafkaSettings, features: FeaturesSettings) -> None:
    """Wait for Kafka, then fold until cancelled."""
    await _topics_ready(project, worker, board, kafka)
    app = batched_app(f"{project.name}.features", kafka, worker.topics, worker.positions, worker.handle)
    watchdog = Watchdog(features.patience_seconds)
    watchdog.start()
    watching = asyncio.create_task(Watch(app, worker, board, kafka, watchdog).run())
    try:
        await app.start()
        await app.wait_until_stopped()
        raise app.crash_reason or RuntimeError("Faust stopped by itself")
    finally:
        watching.cancel()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_SECONDS):
                await app.stop()
        watchdog.stop()


async def _topics_ready(project: Project, worker: Worker, board: HealthBoard, kafka: KafkaSettings) -> None:
    """Return once Kafka and the view topics are there; a topic of another shape is refused until somebody has mended it."""
    specs = topic_specs(project)
    while True:
        try:
            await ensure_topics(kafka, {topic: specs[topic] for topic in [*worker.topics, dead_letters_topic(project.name)]})
        except (KafkaUnavailable, TopicMismatch) as error:
            board.down("kafka", str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
