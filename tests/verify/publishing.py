"""A generated stream on a real topic: each event for many entities, moved to now."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions
from tests.beside import repeated
from tests.verify.projects import Told

from tidemill.kafka.admin import admin
from tidemill.kafka.client import started_producer
from tidemill.kafka.topics import offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime.settings import KafkaSettings

COPIES = 20
"""Each event is told of so many entities, so that a change meets them at different places of the stream."""

_PAUSE_SECONDS = 0.05


class Publisher:
    """Publishes to one topic. `last_ms`: the moment of the stream that is now."""

    def __init__(self, kafka: KafkaSettings, topic: str, last_ms: int, chance: random.Random) -> None:
        self._kafka, self._topic, self._random = kafka, topic, chance
        self._shift_ms = int(time.time() * 1000) - last_ms

    def publish(self, stream: Sequence[Told], stop: threading.Event | None = None) -> None:
        """Publish each event for all copies of its entities."""
        asyncio.run(self._send(stream, stop or threading.Event()))

    @contextmanager
    def meanwhile(self, stream: Sequence[Told]) -> Iterator[None]:
        """Events arrive inside `with`, over and over."""
        with repeated((lambda stop: self.publish(stream, stop), 0)):
            yield

    async def extend(self, partitions: int) -> None:
        """Give the topic as many partitions as it will be declared with."""
        if len(await offset_ranges(self._kafka, self._topic)) < partitions:
            async with admin(self._kafka) as client:
                await client.create_partitions({self._topic: NewPartitions(partitions)})

    async def publish_last(self, told: Told) -> dict[TopicPartition, int]:
        """Publish an event to every partition. Returns where each ends: who has read so far has read all that was published before."""
        ends = {}
        async with started_producer(self._kafka) as producer:
            for target in await offset_ranges(self._kafka, self._topic):
                ((_, last),) = (await send_wave(producer, {tuple(target): [self._record(told, 0)]})).values()
                ends[target] = last + 1
        return ends

    async def _send(self, stream: Sequence[Told], stop: threading.Event) -> None:
        partitions = len(await offset_ranges(self._kafka, self._topic))
        async with started_producer(self._kafka) as producer:
            for told in stream:
                for copy in range(COPIES):
                    if stop.is_set():
                        return
                    partition = copy % partitions if copy % 4 else self._random.randrange(partitions)  # some in no certain order
                    await send_wave(producer, {(self._topic, partition): [self._record(told, copy)]})
                await asyncio.sleep(_PAUSE_SECONDS)

    def _record(self, told: Told, copy: int) -> Record:
        time_ms = told.time_ms + self._shift_ms
        at = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat() if isinstance(told.data["at"], str) else time_ms
        data: dict[str, Any] = {**told.data, "shop": f"{told.data['shop']}{copy}", "at": at}
        if told.data["number"] is not None:
            data["number"] = told.data["number"] + 100 * copy
        headers = [("ce_type", b"told")]
        if "id" in data:
            data["id"] = f"{told.id}-{copy}"
        elif told.id is not None:
            headers.append(("ce_id", f"{told.id}-{copy}".encode()))
        return None, json.dumps(data).encode(), headers
