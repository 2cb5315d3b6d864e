"""Sends traffic to a running system: each act at its moment, or as soon as the system allows."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx
import msgspec

from tidemill.declarations.project import Project
from tidemill.errors import Unavailable
from tidemill.kafka.client import started_producer
from tidemill.kafka.waves import Record, send_wave
from tidemill.runtime.settings import KafkaSettings
from tidemill.traffic.acts import Act
from tidemill.traffic.published import instance, published
from tidemill.traffic.tally import Tally

_MOST = 200  # of one request
_PROGRESS_SECONDS = 0.5


class Door(Protocol):
    """Where events and questions go."""

    async def publish(self, events: Sequence[Act]) -> list[str | None]:
        """Publishes events, and gives for each the reason why it was refused, or None. Raises Unavailable."""

    async def ask(self, model: str, questions: Sequence[Act]) -> list[dict[str, Any]]:
        """The answers of a model, each perhaps an error. Raises Unavailable."""


class HttpDoor:
    """The services' own addresses. `ingestion`, `inference`: their URLs; `inference` is not needed where nothing is asked."""

    def __init__(self, project: Project, client: httpx.AsyncClient, ingestion: str, inference: str) -> None:
        self._project, self._client, self._ingestion, self._inference = project, client, ingestion, inference

    async def publish(self, events: Sequence[Act]) -> list[str | None]:
        """By `POST /events`."""
        body = [{"type": act.event, "data": published(self._project.events[act.event], act.row)} for act in events]
        found = await self._post("ingestion", f"{self._ingestion}/events", body)
        if "results" not in found:
            return [str(found.get("error", found))] * len(events)
        return [f"{one['reason']}: {one['detail']}" if "reason" in one else None for one in found["results"]]

    async def ask(self, model: str, questions: Sequence[Act]) -> list[dict[str, Any]]:
        """By `POST /predict/{model}`."""
        instances = [instance(self._project.models[model], act.row) for act in questions]
        found = await self._post("inference", f"{self._inference}/predict/{model}", {"instances": instances, "features": False})
        answers: list[dict[str, Any]] = found.get("predictions", [found] * len(questions))
        return answers

    async def _post(self, service: str, url: str, body: Any) -> dict[str, Any]:
        try:
            answer = await self._client.post(url, content=msgspec.json.encode(body), headers={"content-type": "application/json"})
            found: dict[str, Any] = msgspec.json.decode(answer.content)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise Unavailable(
                f"{service} at {url} does not answer: {type(error).__name__} {error}".rstrip(), mend="start it, see `tidemill status`"
            ) from error
        return found


class KafkaDoor(HttpDoor):
    """Events go to their topics, as applications write them; questions go over HTTP. What is refused becomes a dead letter, and is not counted here."""

    def __init__(self, project: Project, client: httpx.AsyncClient, producer: Any, inference: str) -> None:
        super().__init__(project, client, "", inference)
        self._producer = producer

    async def publish(self, events: Sequence[Act]) -> list[str | None]:
        """To Kafka, by the producer."""
        wave: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for act in events:
            event = self._project.events[act.event]
            value = msgspec.json.encode(published(event, act.row))
            wave[event.topic, zlib.crc32(value) % event.partitions].append((None, value, event.headers))
        await send_wave(self._producer, wave)
        return [None] * len(events)


@asynccontextmanager
async def open_door(project: Project, ingestion: str, inference: str, kafka: KafkaSettings | None) -> AsyncIterator[Door]:
    """The way to the running system; `kafka`: where events go in place of ingestion. Raises KafkaUnavailable."""
    async with httpx.AsyncClient(trust_env=False, timeout=30, verify=False) as client:  # noqa: S501 - plain HTTP; reading certificates takes 30 ms
        if kafka is None:
            yield HttpDoor(project, client, ingestion, inference)
        else:
            async with started_producer(kafka) as producer:
                yield KafkaDoor(project, client, producer, inference)


async def send(found: Iterable[Act], door: Door, tally: Tally, progress: Callable[[Tally], None]) -> None:
    """Sends acts, each at its moment; what is due together goes together, questions before events. A service that is away in the meantime is counted; Raises
    Unavailable when it was never there."""
    began = shown = time.monotonic()
    due: list[Act] = []
    for act in found:
        wait = act.offset_ms / 1000 - (time.monotonic() - began)
        if due and (wait > 0 or len(due) >= _MOST):
            await _deliver(due, door, tally)
            due = []
            wait = act.offset_ms / 1000 - (time.monotonic() - began)
        if wait > 0:
            await asyncio.sleep(wait)
        if time.monotonic() - shown > _PROGRESS_SECONDS:
            shown = time.monotonic()
            progress(tally)
        due.append(act)
    await _deliver(due, door, tally)
    progress(tally)


async def _deliver(due: Sequence[Act], door: Door, tally: Tally) -> None:
    questions: dict[str, list[Act]] = defaultdict(list)
    for act in due:
        if act.model:
            questions[act.model].append(act)
    for model, asked in questions.items():
        try:
            answers = await door.ask(model, asked)
        except Unavailable as error:
            if not tally.answered and not tally.unanswered:
                raise
            answers = [{"error": error.message}] * len(asked)
        for act, answer in zip(asked, answers, strict=True):
            tally.heard(act, answer)
    if events := [act for act in due if not act.model]:
        try:
            reasons = await door.publish(events)
        except Unavailable as error:
            if not tally.sent:
                raise
            reasons = [error.message] * len(events)
        for act, reason in zip(events, reasons, strict=True):
            tally.told(act, reason)
