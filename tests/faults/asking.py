"""The clients: cases are opened, predicted and closed. Whoever gets no answer repeats the request with the same id.

An outcome comes after the prediction, before it, twice, or never.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer
from tests.faults.served import connection
from tests.faults.traffic import ENTITIES, PLACES, connected

from tidemill.errors import KafkaRefused
from tidemill.kafka.client import close_producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime.settings import KafkaSettings

MODEL = "ends_well"
OPENED, CLOSED = "fault.opened", "fault.closed"
WAVE_SECONDS = 0.2
ANSWER_SECONDS = 4.0
_PARTITIONS = 4
_AGAIN = 0.02
_encode = msgspec.json.Encoder().encode


class Given(NamedTuple):
    """What a client was told."""

    version: str
    output: float


class Closing(NamedTuple):
    """An outcome to be published at a moment (monotonic)."""

    due: float
    case: str
    good: bool


@dataclass
class Case:
    """One case. `answers`: what was told, each time that the request was answered."""

    name: str
    time_ms: int
    answers: list[Given]


class Clients:
    """Opens `per_second` cases in a second and asks for a prediction of each."""

    def __init__(self, kafka: KafkaSettings, url: str, seed: int, per_second: float) -> None:
        self.cases: dict[str, Case] = {}
        self.repeated = 0
        self.opened: set[str] = set()
        self.closed: set[str] = set()
        self.refused: list[str] = []
        self._kafka, self._url, self.per_second = kafka, url, per_second
        self._pick = random.Random(seed)
        self._queue: list[tuple[str, dict[str, Any]]] = []
        self._closings: list[Closing] = []
        self._ending = asyncio.Event()
        self.asking = False
        self.waiting: set[str] = set()  # cases whose requests are still to be answered
        self.last_refusal = "none yet"

    @property
    def answered(self) -> int:
        """How many predictions were given."""
        return sum(bool(case.answers) for case in self.cases.values())

    async def all_answered(self) -> None:
        """Returns once every request that waits now is answered, whatever is asked meanwhile."""
        asked = set(self.waiting)
        while asked & self.waiting:
            await asyncio.sleep(0.05)

    def tick(self) -> None:
        """Close a case that nobody opened: time passes in the outcomes' log."""
        self._closings.append(Closing(0, f"c{10**9 + len(self.closed)}", True))

    def stop(self) -> None:
        """Make `run` return once every request is answered and every outcome that is due published."""
        self._ending.set()

    async def run(self) -> None:
        """Open and ask until `stop`; predictions are asked for as soon as `asking` is set: there must be a model."""
        async with connection(self._url, ANSWER_SECONDS) as http, asyncio.TaskGroup() as group:
            group.create_task(self._tell())
            number, opened = 0, 0.0
            while not self._ending.is_set():
                opened += self.per_second * WAVE_SECONDS
                while opened >= 1:
                    opened -= 1
                    self._open(group, http, number)
                    number += 1
                await asyncio.sleep(WAVE_SECONDS)

    async def _tell(self) -> None:
        """Publish what was opened and what is to be closed; while Kafka is away it waits, and the asking goes on."""
        client = await connected(self._kafka)
        while not self._ending.is_set():
            self._close_what_is_due(time.monotonic())
            client = await self._publish(client)
            await asyncio.sleep(WAVE_SECONDS)
        self._close_what_is_due(math.inf)
        client = await self._publish(client)
        await close_producer(client)

    def _open(self, group: asyncio.TaskGroup, http: aiohttp.ClientSession, number: int) -> None:
        pick, now_ms, now = self._pick, time.time_ns() // 1_000_000, time.monotonic()
        name = f"c{number}"
        self.opened.add(name)
        amount = round(pick.random() * 50, 2)
        entities = {"entity": pick.randrange(ENTITIES + 20), "place": f"p{pick.randrange(PLACES + 1)}", "amount": amount}
        good = pick.random() < 0.2 + amount / 80
        self._queue.append((OPENED, {"case": name, "at": now_ms, "ask_at": now_ms, **entities}))
        kind = pick.random()
        if kind < 0.1:
            self._closings.append(Closing(now, name, good))  # it may be known before the prediction is made
        elif kind < 0.9:
            self._closings.append(Closing(now + pick.uniform(0.5, 15), name, good))
        if 0.1 <= kind < 0.15:
            self._closings.append(Closing(now + 20, name, not good))  # the first one counts
        if self.asking:
            self.cases[name] = Case(name, now_ms, [])
            self.waiting.add(name)
            group.create_task(self._ask(http, name, now_ms, entities, pick.uniform(0, 1), again=pick.random() < _AGAIN))

    async def _ask(
        self, http: aiohttp.ClientSession, name: str, time_ms: int, entities: dict[str, Any], wait: float, *, again: bool
    ) -> None:
        await asyncio.sleep(wait)
        body = _encode({"entities": entities, "id": f"p-{name}", "subject": name, "time": time_ms, "features": False})
        for _ in range(1 + again):
            self.cases[name].answers.append(await self._answer(http, body))
        self.waiting.discard(name)

    async def _answer(self, http: aiohttp.ClientSession, body: bytes) -> Given:
        pause = 0.1
        while True:
            try:
                async with http.post(f"/predict/{MODEL}", data=body) as response:
                    said = await response.read()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.last_refusal = repr(error)
            else:
                if response.status == HTTPStatus.OK:
                    answer = msgspec.json.decode(said)
                    return Given(answer["version"], answer["probability"])
                self.last_refusal = f"{response.status} {said[:300].decode()}"
                if response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    self.refused.append(self.last_refusal)
            self.repeated += 1
            await asyncio.sleep(pause)
            pause = min(1.0, 1.5 * pause)

    def _close_what_is_due(self, now: float) -> None:
        due = [closing for closing in self._closings if closing.due <= now]
        if due:
            self._closings = [closing for closing in self._closings if closing.due > now]
            at = time.time_ns() // 1_000_000
            self._queue += [(CLOSED, {"case": closing.case, "at": at, "good": closing.good}) for closing in due]
            self.closed |= {closing.case for closing in due}

    async def _publish(self, client: AIOKafkaProducer) -> AIOKafkaProducer:
        """Publishes what waits; what Kafka refuses is published again."""
        queue, self._queue = self._queue, []
        wave: dict[tuple[str, int], list[Record]] = {}
        for topic, data in queue:
            partition = int(data["case"][1:]) % _PARTITIONS  # all of a case in order
            wave.setdefault((topic, partition), []).append((None, _encode(data), []))
        while wave:
            try:
                await send_wave(client, wave)
                break
            except KafkaRefused:
                await close_producer(client, 2)
                client = await connected(self._kafka)
        return client
