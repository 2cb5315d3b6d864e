"""CloudEvents over HTTP as the SDK of the specification makes them: binary, structured, in batches, and compressed."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from tests.ingestion.samples import departed, project

from tidemill.records import Position
from tidemill.runtime.encodings import unpacked
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill_ingestion.app import create_app
from tidemill_ingestion.http_api import EventsEndpoint, _binary
from tidemill_ingestion.publisher import Message, Publisher

ATTRIBUTES = {"type": "departed", "source": "/gates/süd 4", "id": "e-1 %", "specversion": "1.0"}
KNOWN = "2023-11-14T22:13:25Z"


class Kept(Publisher):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> list[Position]:
        """Where each one lies then."""
        self.messages += messages
        return [("departed", 0, number) for number in range(len(messages))]


@pytest.fixture
def kept() -> Kept:
    """What was published."""
    return Kept()


@pytest.fixture
async def client(kept: Kept) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application."""
    board = HealthBoard()
    app = unpacked(create_app(board, EventsEndpoint(project(), kept, board)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingestion") as made:
        yield made


def event(**attributes: Any) -> CloudEvent:
    """A departure, as an application makes it with the SDK."""
    return CloudEvent(ATTRIBUTES | {"time": datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), "recordedtime": KNOWN} | attributes, departed())


async def test_all_modes_say_the_same(client: httpx.AsyncClient, kept: Kept) -> None:
    """Binary, structured, and a batch: the same records, with the attributes as the application gave them."""
    binary, structured = to_binary_event(event(partitionkey="gate 4")), to_structured_event(event(partitionkey="gate 4"))
    batch = b"[" + structured.body + b"]"
    for headers, body in (
        (binary.headers, binary.body), (structured.headers, structured.body), ({"content-type": "application/cloudevents-batch+json"}, batch),
        ({**binary.headers, "content-encoding": "gzip"}, gzip.compress(binary.body)),
    ):  # fmt: skip
        answer = await client.post("/events", content=body, headers=headers)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text
    first, *others = kept.messages
    assert first.key == b"gate 4"
    told = {name: value.decode() for name, value in first.headers}
    assert (told["ce_id"], told["ce_type"], told["ce_source"]) == ("e-1 %", "departed", "/gates/süd 4")
    assert told["ce_recordedtime"] == KNOWN
    for other in others:
        assert (other.key, json.loads(other.value), dict(other.headers)) == (first.key, json.loads(first.value), dict(first.headers))


async def test_a_binary_event_that_is_wrong(client: httpx.AsyncClient) -> None:
    """It is judged like any other: 422 with the reason; what is no CloudEvent is 400."""
    message = to_binary_event(CloudEvent(ATTRIBUTES, departed(seats="x")))
    refused = await client.post("/events", content=message.body, headers=message.headers)
    assert (refused.status_code, refused.json()["results"][0]["reason"]) == (422, "wrong_type")
    untyped = await client.post("/events", content=message.body, headers={"ce-id": "1", "content-type": "application/json"})
    assert (untyped.status_code, "`type`" in untyped.text) == (400, True)
    text = await client.post("/events", content=b"hello", headers={**message.headers, "content-type": "text/plain"})
    assert (text.status_code, "text/plain" in text.text) == (400, True)
    no_text = await client.post("/events", content=message.body, headers={**message.headers, "ce-source": "%ff"})
    assert no_text.status_code == 400


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30))
def test_any_text_is_an_attribute(text: str) -> None:
    """Whatever characters it has, as the SDK writes it into a header."""
    message = to_binary_event(CloudEvent(ATTRIBUTES | {"id": text}, {}))
    headers = [(name.lower().encode(), value.encode()) for name, value in message.headers.items()]
    found = _binary({"headers": headers}, message.body)
    assert found is not None
    assert found.id == text
