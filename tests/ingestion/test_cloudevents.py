"""CloudEvents over HTTP as the SDK of the specification makes them: binary, structured, in batches, and compressed."""

from __future__ import annotations

import base64
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
from tests.ingestion.samples import departed, project, refusal, route

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


WHOLE = {"type": "departed", "source": "/gates", "id": "e-1", "specversion": "1.0"}
STRUCTURED = [("content-type", b"application/cloudevents+json")]
GOOD = json.dumps(departed(), ensure_ascii=False).encode()


def in_base64(content: bytes = GOOD, /, **members: Any) -> dict[str, Any]:
    """A whole CloudEvent whose data are bytes."""
    return WHOLE | {"data_base64": base64.b64encode(content).decode()} | members


@pytest.mark.parametrize(
    "told", [{}, {"datacontenttype": "application/json; charset=utf-8"}, {"datacontenttype": "application/vnd.shop+JSON"}]
)
async def test_data_in_base64(client: httpx.AsyncClient, kept: Kept, told: dict[str, Any]) -> None:
    """JSON in base64 is the event: the same record as with plain data, over HTTP alone, in a batch and beside others, and from Kafka."""
    whole, plain = in_base64(**told), WHOLE | {"data": departed()}
    for body in (plain, whole, [whole], {"events": [whole]}):
        answer = await client.post("/events", json=body, headers={"content-type": "application/cloudevents+json"})
        assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text
    first, *others = kept.messages
    assert [(json.loads(each.value), each.headers) for each in others] == [(json.loads(first.value), first.headers)] * 3
    assert route(whole, headers=STRUCTURED) == route(plain, headers=STRUCTURED)


@pytest.mark.parametrize(
    ("whole", "reason", "field", "detail"),
    [
        (in_base64(data=departed()), "bad_envelope", "data_base64", "data and data_base64 are both there"),
        (in_base64(data=None), "bad_envelope", "data_base64", "data and data_base64 are both there"),
        (in_base64(datacontenttype="application/avro"), "bad_envelope", "data_base64", "data_base64 is 'application/avro' (datacontenttype)"),
        (in_base64(datacontenttype="text/plain"), "bad_envelope", "data_base64", "publish JSON"),
        (in_base64(data_base64="no base64!"), "bad_envelope", "data_base64", "data_base64 is no base64"),
        (in_base64(data_base64=7), "bad_envelope", "data_base64", "Expected `str | null`, got `int`"),
        (in_base64(b""), "not_json", "data_base64", "data_base64: "),
        (in_base64(b"hello"), "not_json", "data_base64", "data_base64: JSON is malformed"),
        (in_base64(gzip.compress(GOOD)), "encoded", "data_base64", "data_base64: the value is compressed with gzip"),
        (in_base64(b'{"dep_delay": NaN}'), "not_finite", "dep_delay", "data_base64: dep_delay is NaN"),
        (in_base64(b"[1]"), "not_object", None, "Expected `object`"),
        (in_base64(json.dumps(departed(seats="x")).encode()), "wrong_type", "seats", "Expected `int"),
        (in_base64(b"\0\0\0\0\x07\x02\x04"), "framed", None, "framed by a schema registry (schema id 7"),
        (WHOLE | {"data_base64": None}, "missing_field", "data", "data is missing"),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_event(
    client: httpx.AsyncClient, whole: dict[str, Any], reason: str, field: str | None, detail: str
) -> None:
    """The refusal names the cause, over HTTP and from Kafka."""
    (result,) = (await client.post("/events", json=whole)).json()["results"]
    assert (result["reason"], result.get("field"), detail in result["detail"]) == (reason, field, True), result
    letter = refusal(route(whole, headers=STRUCTURED))
    assert (letter.reason, detail in letter.detail) == (reason, True), letter.detail
