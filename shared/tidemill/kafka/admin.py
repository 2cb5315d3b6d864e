"""The admin client, and waiting until Kafka answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import REQUEST_TIMEOUT_MS, RETRY_SECONDS, kafka_errors
from tidemill.kafka.patches import Admin
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings

log = get_logger(__name__)


@asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client. Raises KafkaUnavailable for errors of Kafka's client inside."""
    client = Admin(**settings.client_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        with kafka_errors(settings):
            await client.start()
            yield client
    finally:
        await client.close()


async def wait_for_kafka(settings: KafkaSettings, deadline_seconds: float | None = 60.0) -> None:
    """Return once the cluster answers. Raises KafkaUnavailable after the deadline (None: never), naming the last reason."""
    reason = "no answer"
    try:
        async with asyncio.timeout(deadline_seconds):
            while True:
                try:
                    async with admin(settings) as client:
                        await client.list_topics()
                    return
                except KafkaUnavailable as error:
                    if reason != error.message:
                        reason = error.message
                        log.warning("waiting for Kafka", bootstrap_servers=settings.bootstrap_servers, reason=reason)
                await asyncio.sleep(RETRY_SECONDS)
    except TimeoutError:
        raise KafkaUnavailable(
            f"Kafka at {settings.bootstrap_servers} was not ready after {deadline_seconds:g} s: {reason}",
            mend="start it, or correct KAFKA_BOOTSTRAP_SERVERS",
        ) from None
