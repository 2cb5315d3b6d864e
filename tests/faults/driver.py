"""The driver: an application that publishes and a client that asks, both repeating what fails, step by step of event time."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from tests.faults.recording import Sent

from tidemill.errors import KafkaRefused, TidemillError
from tidemill.kafka import Record, send_wave
from tidemill.playback import Agenda, Due, Playback

T = TypeVar("T")
PATIENCE_SECONDS = 90.0
_SLICES = 8
_AT_ONCE = 40


@dataclass
class Driver:
    """`published`: what lies at each position of the application's topics. `answered`: id -> the answer that came with a 200."""

    playback: Playback
    producer: AIOKafkaProducer
    http: httpx.AsyncClient
    model: str
    agenda: Agenda
    published: dict[tuple[str, int, int], Sent] = field(default_factory=dict)
    in_order: list[Sent] = field(default_factory=list)
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, tuple[str | None, int]] = field(default_factory=dict)  # id -> subject and time
    repeated: int = 0
    _announced: set[str] = field(default_factory=set)

    async def step(self, sent: Sequence[Sent], end_ms: int, *, ask: bool, slowly: bool = False) -> None:
        """Publishes what became known in a step, waits until it is applied, and asks for the predictions that are due.

        `slowly`: in slices, so that a fault falls between them.
        """
        for item in sent:
            if item.event == "shop.ordered" and item.reason is None and item.data["order"] not in self._announced:
                self._announced.add(item.data["order"])
                self.agenda.announce(item.event, item.data)
        positions: dict[TopicPartition, int] = {}
        size = max(1, -(-len(sent) // _SLICES)) if slowly else max(1, len(sent))
        for start in range(0, len(sent), size):
            positions |= await self._publish(sent[start : start + size])
            await asyncio.sleep(0.08 if slowly else 0)
        await self.patiently("routing", lambda: self.playback.routed(positions, 10))
        if ask:
            await self.patiently("feature computation", lambda: self.playback.applied(10))
        due = list(self.agenda.due(end_ms))
        if ask:
            parts = [due[i : i + _AT_ONCE] for i in range(0, len(due), _AT_ONCE)]
            await asyncio.gather(*(self._ask(part, end_ms) for part in parts))

    async def _publish(self, sent: Sequence[Sent]) -> dict[TopicPartition, int]:
        wave: dict[tuple[str, int], list[Record]] = defaultdict(list)
        items: dict[tuple[str, int], list[Sent]] = defaultdict(list)
        for item in sent:
            event = self.playback.project.events[item.event]
            target = event.topic, zlib.crc32(item.value or b"") % event.partitions
            headers = [("ce_type", item.event.encode()), ("ce_recordedtime", b"%d" % item.known_ms)]
            wave[target].append((None, item.value, headers))
            items[target].append(item)
        offsets = await send_wave(self.producer, wave)
        for (topic, partition), (first, last) in offsets.items():
            here = items[topic, partition]
            assert last - first + 1 == len(here), (
                f"{topic}[{partition}]: {len(here)} events were sent, offsets {first} to {last} were given"
            )
            self.published |= {(topic, partition, first + i): item for i, item in enumerate(here)}
        self.in_order += sent
        return {TopicPartition(*target): last + 1 for target, (_, last) in offsets.items()}

    async def _ask(self, due: Sequence[Due], time_ms: int) -> None:
        instances = []
        for item in due:
            prediction = f"{item.instance['subject']}@{time_ms}"
            self.asked[prediction] = item.instance["subject"], time_ms
            instances.append({**item.instance, "id": prediction, "time": time_ms})
        body = msgspec.json.encode({"instances": instances, "features": False})
        for answer in (await self.predict(body))["predictions"]:
            self.answered[answer["prediction_id"]] = answer

    async def ask_one(self, name: str, entities: dict[str, Any], time_ms: int) -> None:
        """One prediction that no outcome is about."""
        self.asked[name] = None, time_ms
        body = msgspec.json.encode({"entities": entities, "id": name, "time": time_ms, "features": False})
        self.answered[name] = await self.predict(body)

    async def predict(self, body: bytes) -> dict[str, Any]:
        """Asks until the answer is 200; whatever else comes is repeated with the same ids, as a client would."""

        async def attempt() -> dict[str, Any]:
            response = await self.http.post(f"/predict/{self.model}", content=body)
            if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise httpx.HTTPStatusError(response.text, request=response.request, response=response)
            assert response.status_code == httpx.codes.OK, response.text
            answer: dict[str, Any] = response.json()
            return answer

        return await self.patiently("inference", attempt)

    async def patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tries until it works. Raises AssertionError naming the last failure when it never does."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await attempt()
            except KafkaRefused:
                raise
            except (TidemillError, KafkaError, httpx.HTTPError, OSError, TimeoutError) as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what} did not come back within {PATIENCE_SECONDS:g} s") from error
                self.repeated += 1
                await asyncio.sleep(0.1)
