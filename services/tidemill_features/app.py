"""Wiring: health and metrics over HTTP, the link to Redis, the Faust app, and the watch over its progress."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import faust

from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.online.writer import OnlineWriter
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import run_together, run_workers
from tidemill.runtime.settings import HttpSettings, KafkaSettings, RedisSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.topics import dead_letters_topic
from tidemill.streams.view_logs import ensure_logs
from tidemill_features.dead_letters import DeadLetterTopic
from tidemill_features.faust_transport import batched_app
from tidemill_features.settings import FeaturesSettings
from tidemill_features.watch import Watch
from tidemill_features.worker import Worker

REDIS_TIMEOUT_SECONDS = 3.0
RETRY_SECONDS = 1.0
STOP_SECONDS = 8.0  # Faust may wait for a Kafka that is away


async def serve(project: Project, http: HttpSettings, kafka: KafkaSettings, redis: RedisSettings, features: FeaturesSettings) -> None:
    """Run until SIGINT or SIGTERM. Raises what ended the Faust app, if something did."""
    board, pulse = HealthBoard("kafka", "redis", "partitions"), Pulse("fold")

    async def work() -> None:
        letters, redis_link = (
            DeadLetterTopic(kafka, dead_letters_topic(project.name)),
            redis_client(redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis")),
        )
        async with letters, redis_link as link:
            worker = Worker(project, OnlineWriter(link, project.name), features.cache_mb << 20, letters)
            await _topics_ready(project, worker, board, kafka, pulse)
            app = batched_app(f"{project.name}.features", kafka, worker.topics, worker.positions, worker.handle)
            await run_together(Watch(app, worker, board, kafka, pulse).run(), _fold(app), keep_asking(link))

    await run_workers(OpsApp(board), http, work(), [pulse], board)


async def _fold(app: faust.App) -> None:
    """Run the Faust app until cancelled. Raises what ended it."""
    try:
        await app.start()
        await app.wait_until_stopped()
        raise app.crash_reason or RuntimeError("Faust stopped by itself")
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_SECONDS):
                await app.stop()


async def _topics_ready(project: Project, worker: Worker, board: HealthBoard, kafka: KafkaSettings, pulse: Pulse) -> None:
    """Return once Kafka and the view topics are there; a topic of another shape, or a log that is not filled, is refused until somebody has mended it."""
    while True:
        pulse.beat()
        try:
            await ensure_logs(kafka, project, [*worker.topics, dead_letters_topic(project.name)])
        except (KafkaUnavailable, TopicMismatch) as error:
            board.down("kafka", str(error))
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
