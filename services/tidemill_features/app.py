"""Wiring: health and metrics over HTTP, the link to Redis, the Faust app, and the watch over it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import faust

from tidemill.declarations.project import load_project
from tidemill.online.writer import OnlineWriter
from tidemill.redis.client import keep_asking, redis_client
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.service import Service, run_together
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.following import Following, InForce, views_of
from tidemill.streams.topics import dead_letters_topic
from tidemill.streams.view_logs import need_topics
from tidemill_features.dead_letters import DeadLetterTopic
from tidemill_features.faust_transport import batched_app
from tidemill_features.recall import read_back_from
from tidemill_features.settings import FeaturesSettings
from tidemill_features.watch import LOOK_SECONDS, FoldWatch
from tidemill_features.worker import Worker

REDIS_TIMEOUT_SECONDS = 3.0
STOP_SECONDS = 8.0  # Faust may wait for a Kafka that is away


def build(settings: FeaturesSettings) -> Service:
    """The service, not yet running. Its work raises the error that ends the Faust app. Raises ProjectError and DeclarationError."""
    project, kafka = load_project(settings.project.project), settings.kafka
    board, pulse = HealthBoard("kafka", "redis", "partitions"), Pulse("fold")
    tell = partial(board.down, "kafka")

    async def work() -> None:
        letters, redis_link = (
            DeadLetterTopic(kafka, dead_letters_topic(project.name)),
            redis_client(settings.redis.url, REDIS_TIMEOUT_SECONDS, partial(board.report, "redis")),
        )
        async with letters, redis_link as link:

            async def fold(now: InForce) -> None:
                worker = Worker(
                    now.project, OnlineWriter(link, project.name), settings.limits.cache_mb << 20, letters, read_back_from(kafka)
                )
                needed = [*worker.topics, dead_letters_topic(project.name)]
                await need_topics(kafka, now.project, tell, [pulse], needed)
                if not worker.topics:
                    await _idle(board, pulse)
                app = batched_app(f"{project.name}.features", kafka, worker.topics, worker.positions, worker.handle, worker.give_up)
                await run_together(FoldWatch(app, worker, board, kafka, pulse).run(), _fold(app))

            await run_together(Following(kafka, project, views_of, tell, [pulse]).run(fold), keep_asking(link))

    return Service(settings, board, OpsApp(board), work, [pulse])


async def _idle(board: HealthBoard, pulse: Pulse) -> None:
    """While the first version of a view is being filled there is nothing to fold. Until cancelled."""
    board.up("kafka")
    board.up("partitions")
    while True:
        pulse.beat()
        await asyncio.sleep(LOOK_SECONDS)


async def _fold(app: faust.App) -> None:
    """Run the Faust app until cancelled. Raises the error that ended it."""
    try:
        await app.start()
        await app.wait_until_stopped()
        raise app.crash_reason or RuntimeError("Faust stopped by itself")
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_SECONDS):
                await app.stop()
