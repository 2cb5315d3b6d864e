"""The deployments topic: which version of each model serves. One way to announce a version, one way to follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import TopicPartition

from tidemill.kafka.client import RARE, started_producer
from tidemill.kafka.read_to_end import decoded_of, read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.waves import send_wave
from tidemill.records import DeploymentRecord, decoder, encode
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import deployments_topic

log = get_logger(__name__)

WAIT_SECONDS, MOST = 1.0, 1_000
_decode = decoder(DeploymentRecord).decode


async def append_deployment(settings: KafkaSettings, project: str, record: DeploymentRecord, deadline_seconds: float) -> None:
    """Announces the versions that should serve a model. Inference loads and checks them, then swaps to them.

    Raises BadDeployment (nothing is written), KafkaUnavailable when it is not acknowledged in time, KafkaRefused.
    """
    record.versions()
    async with started_producer(settings, deadline_seconds) as made, asyncio.timeout(deadline_seconds):
        await send_wave(made, {(deployments_topic(project), 0): [(record.model.encode(), encode(record), [])]})


class Deployments:
    """Follows the deployments of a project, inside `async with`. A record that cannot be decoded is logged and left out.

    Every method raises KafkaUnavailable, and TopicRecreated when the topic lost records that were read.
    """

    def __init__(self, settings: KafkaSettings, project: str) -> None:
        self._reader = Reader(settings, {TopicPartition(deployments_topic(project), 0): 0}, **RARE)

    async def __aenter__(self) -> Deployments:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.stop()

    async def so_far(self) -> AsyncIterator[list[DeploymentRecord]]:
        """The deployments there are now, in slices, oldest first; a slice may be empty."""
        async for fetched in read_to_end(self._reader, self._reader.first_ends):
            yield list(decoded_of(fetched, _decode, _unreadable))

    async def next(self, wait_seconds: float = WAIT_SECONDS) -> list[DeploymentRecord]:
        """Later deployments; empty when none came in time."""
        return list(decoded_of(await self._reader.fetch(wait_seconds, MOST), _decode, _unreadable))


def _unreadable(record: Any, error: Exception) -> None:
    log.error("deployment cannot be read", offset=record.offset, reason=str(error))
