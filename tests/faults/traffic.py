"""The application: producers that publish numbered measurements, late, twice, spoiled and oversized ones among them, and know what was acknowledged.

Every producer numbers its events without a gap and repeats a wave until Kafka has acknowledged it, so all of its numbers below `next` are in
the log. An event's id says its producer and its number; what is spoiled carries them too, so that its dead letter can be told from others.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections import defaultdict, deque
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tidemill.errors import KafkaRefused
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.limits import MESSAGE_BYTES
from tidemill.runtime.settings import KafkaSettings

TOPIC, PARTITIONS = "fault.measured", 4
PRODUCERS, ENTITIES, PLACES = 3, 2_000, 400
WAVE_SECONDS = 0.1
REMEMBERED_IDS = 64  # of an entity, by the view `entities` of the project
SHOWN_BYTES = 24  # of a spoiled event: enough to know which it is
_MINUTE_MS = 60_000
_encode = msgspec.json.Encoder().encode
Headers = list[tuple[str, bytes]]


@dataclass
class Sender:
    """One producer. `next`: its first number not acknowledged. `spoiled`: first bytes of what must become a dead letter -> its reason."""

    number: int
    pick: random.Random
    next: int = 0
    spoiled: dict[bytes, str] = field(default_factory=dict)
    spoiled_numbers: set[int] = field(default_factory=set)
    repeated: int = 0
    """Events sent twice, by intention or because Kafka refused a wave."""
    sent: deque[list[bytes]] = field(default_factory=lambda: deque(maxlen=300))
    """The waves of the last half minute, or fewer: see `kept_waves`."""
    graded: bool = False
    """Whether new events carry a grade."""

    def wave(self, events: int, now_ms: int) -> list[bytes]:
        """So many new events in order; a few of them twice, and now and then a whole earlier wave again."""
        values = []
        for number in range(self.next, self.next + events):
            value = self._event(number, now_ms)
            values.append(value)
            if self.pick.random() < 0.001 and number not in self.spoiled_numbers:
                values.append(value)
                self.repeated += 1
        self.sent.append([value for value in values if value[:SHOWN_BYTES] not in self.spoiled])
        if self.pick.random() < 0.02:
            again = self.pick.choice(self.sent)
            self.repeated += len(again)
            return [*values, *again]
        return values

    def _event(self, number: int, now_ms: int) -> bytes:
        pick = self.pick
        chance = pick.random()
        at = now_ms - pick.randrange(200)
        if chance < 0.05:
            at = now_ms - pick.randrange(8 * _MINUTE_MS)
        elif chance < 0.052:
            at = now_ms - 30 * _MINUTE_MS  # beyond every window of its entity, once the entity is known
        data = {
            "id": f"{self.number}-{number}", "at": at, "entity": pick.randrange(ENTITIES), "place": f"p{pick.randrange(PLACES)}",
            "value": pick.random() * 100, "units": None if chance > 0.95 else pick.randrange(400) / 4,
        }  # fmt: skip
        if self.graded:
            data["grade"] = None if chance > 0.9 else pick.randrange(40) / 4
        return _encode(data) if chance < 0.9999 or number < 100 else self._spoiled(number, data, now_ms)

    def _spoiled(self, number: int, data: dict[str, object], now_ms: int) -> bytes:
        good = _encode(data)
        value, reason = self.pick.choice(
            [
                (good[:-3], "not_json"),
                (_encode([data["id"]]), "not_object"),
                (_encode(data | {"value": "much"}), "wrong_type"),
                (_encode(data | {"entity": None}), "wrong_type"),
                (_encode({name: data[name] for name in data if name != "place"}), "missing_field"),
                (good.replace(b'"value":', b'"value":NaN,"x":'), "not_finite"),
                (_encode(data | {"entity": 10**30}), "out_of_range"),
                (_encode(data | {"at": -5}), "bad_time"),
                (_encode(data | {"at": now_ms + 180 * _MINUTE_MS}), "future_time"),
                (_encode(data | {"place": "x" * (MESSAGE_BYTES + 10)}), "oversized"),
            ]
        )
        self.spoiled[value[:SHOWN_BYTES]] = reason
        self.spoiled_numbers.add(number)
        return value


def kept_waves(events_per_second: float) -> int:
    """How many waves may be published again: those of half a minute, and no more than in which an entity has half as many events as its view remembers ids."""
    return min(300, int(REMEMBERED_IDS / 2 * ENTITIES / (events_per_second * WAVE_SECONDS)))


class Traffic:
    """All producers. `positions`: (topic, partition) -> the offset after the last event acknowledged there."""

    def __init__(self, kafka: KafkaSettings, seed: int, events_per_second: int) -> None:
        self._kafka = kafka
        kept = kept_waves(events_per_second)
        self.senders = [Sender(number, random.Random(seed * 100 + number), sent=deque(maxlen=kept)) for number in range(PRODUCERS)]
        self.events_per_second = events_per_second
        self.positions: dict[tuple[str, int], int] = {}
        self.refused = 0
        self._ending = asyncio.Event()

    @property
    def events(self) -> int:
        """How many different events were acknowledged."""
        return sum(sender.next for sender in self.senders)

    @property
    def spoiled(self) -> dict[bytes, str]:
        """Everything that must become a dead letter, and why."""
        return {value: reason for sender in self.senders for value, reason in sender.spoiled.items()}

    def extend(self) -> None:
        """From now on events carry one field more."""
        for sender in self.senders:
            sender.graded = True

    def stop(self) -> None:
        """Make `run` return once the waves in progress are acknowledged."""
        self._ending.set()

    async def run(self) -> None:
        """Publish until `stop`. Time lost while Kafka is away is not made up for."""
        async with asyncio.TaskGroup() as group:
            for sender in self.senders:
                group.create_task(self._run(sender))

    async def _run(self, sender: Sender) -> None:
        client = await connected(self._kafka)
        events = max(1, round(self.events_per_second * WAVE_SECONDS / len(self.senders)))
        due = time.monotonic()
        try:
            while not self._ending.is_set():
                values = sender.wave(events, time.time_ns() // 1_000_000)
                client = await self._send(client, sender, values)
                sender.next += events
                due = max(due + WAVE_SECONDS, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
        finally:
            await close_producer(client)

    async def _send(self, client: AIOKafkaProducer, sender: Sender, values: list[bytes]) -> AIOKafkaProducer:
        """Sends until acknowledged; a producer that was refused is replaced, and the wave repeated, as any application would."""
        wave: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for value in values:
            wave[TOPIC, zlib.crc32(value) % PARTITIONS].append((None, value, []))
        while True:
            try:
                offsets = await send_wave(client, wave)
            except KafkaRefused:
                self.refused += 1
                sender.repeated += len(values)
                await close_producer(client, 2)
                client = await connected(self._kafka)
            else:
                for target, (_, last) in offsets.items():
                    self.positions[target] = max(self.positions.get(target, 0), last + 1)
                return client


async def connected(kafka: KafkaSettings) -> AIOKafkaProducer:
    """A producer that is connected, however long that takes."""
    while True:
        client = producer(kafka)
        try:
            await client.start()
        except (KafkaError, OSError):
            await close_producer(client, 1)
            await asyncio.sleep(0.3)
        else:
            return client
