"""`POST /events` without Kafka: what is refused, and how it says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.ingestion.samples import departed, project

from tidemill.errors import BadRequest
from tidemill.limits import MESSAGE_BYTES
from tidemill.runtime.health import UNCHECKED, HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill_ingestion.app import create_app
from tidemill_ingestion.http_api import MAX_BODY_BYTES, MAX_EVENTS, EventsEndpoint, split_body
from tidemill_ingestion.publisher import Publisher

GOOD = {"type": "departed", "data": departed()}


@pytest.fixture
def board() -> HealthBoard:
    """The checks of an ingestion that found no Kafka."""
    made = HealthBoard("kafka", "routing")
    made.down("kafka", "connection refused")
    return made


@pytest.fixture
async def client(board: HealthBoard) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application while Kafka is away."""
    app = create_app(board, EventsEndpoint(project(), Publisher(KafkaSettings(bootstrap_servers="127.0.0.1:1")), board))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingestion") as made:
        yield made


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"not json", "JSON"),
        (b'"a text"', "object"),
        (b"3", "object"),
        (b"[", "truncated"),
        (b"[]", "no events"),
        (b'{"events": []}', "no events"),
        (b'{"events": 3}', "array"),
        (b'{"events": null}', "array"),
        (b"\xff\xff", "JSON"),
        (b"\xff\xfe{\0}\0", "the body is encoded in UTF-16"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\xef\xbb\xbf[]", "no events"),
        (b'[{"type": "\xff"}, NaN]', "malformed"),
        (b"[" * 100_000, "JSON"),
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", str(MAX_EVENTS)),
    ],
)
async def test_body_that_is_no_request(client: httpx.AsyncClient, body: bytes, named: str) -> None:
    """A body that is no request is answered 400 with what is wrong and what to do."""
    answer = await client.post("/events", content=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "mend"}
    assert named in answer.text


async def test_body_too_large(client: httpx.AsyncClient) -> None:
    """A body above the limit is answered 413."""
    assert (await client.post("/events", content=b" " * (MAX_BODY_BYTES + 1))).status_code == 413


@pytest.mark.parametrize(
    ("event", "reason", "field"),
    [
        ({}, "missing_field", "type"),
        ({"type": "departed"}, "missing_field", "data"),
        ({"type": "landed", "data": {}}, "unknown_event", "type"),
        ({"type": 3, "data": {}}, "bad_envelope", "type"),
        ({"type": "departed", "data": departed(), "id": 3}, "bad_envelope", "id"),
        ({"type": "departed", "data": departed(), "source": "x" * 5000}, "bad_envelope", "source"),
        ({"type": "departed", "data": departed(), "time": "x" * 5000}, "bad_envelope", "time"),
        ({"type": "departed", "data": departed(), "partitionkey": "x" * 5000}, "bad_envelope", "partitionkey"),
        ({"type": "departed", "data": departed(), "id": ""}, "bad_id", "id"),
        ({"type": "departed", "data": departed(), "recordedtime": "now"}, "bad_time", "recordedtime"),
        ({"type": "departed", "data": departed(seats="x")}, "wrong_type", "seats"),
        ({"type": "departed", "data": departed(origin="")}, "bad_key", "origin"),
        ({"type": "departed", "data": departed(origin=..., orgin="EWR")}, "missing_field", "origin"),
        ({"type": "departed", "data": departed(origin="x" * 2 * MESSAGE_BYTES)}, "oversized", None),
        ({"type": "departed", "data": [departed()]}, "not_object", None),
        ({"type": "departed", "data_base64": "e30="}, "missing_field", "carrier"),
    ],
)
async def test_refused_event(client: httpx.AsyncClient, event: dict[str, Any], reason: str, field: str | None) -> None:
    """A bad event is answered 422 with reason, field and detail, also while Kafka is away: nothing needs to be written."""
    answer = await client.post("/events", json=event)
    assert answer.status_code == 422
    (result,) = answer.json()["results"]
    assert (result["index"], result["reason"], result.get("field")) == (0, reason, field)
    assert result["detail"]


async def test_outcome_that_cannot_be_routed(client: httpx.AsyncClient) -> None:
    """What routing would refuse is refused here already."""
    data = {"number": 1, "flight": "UA1", "arrived_at": "2020-01-01T00:00:00Z", "arr_delay": 1, "fuel": 1e200}
    answer = await client.post("/events", json={"type": "arrived", "data": data})
    assert [result["reason"] for result in answer.json()["results"]] == ["out_of_range"]


async def test_refused_batch_keeps_its_order(client: httpx.AsyncClient) -> None:
    """Every event of a batch has its result in its place, in all forms of a batch."""
    events = [{"type": "x"}, {"type": "y", "data": {}}, {"type": "departed", "data": {}}]
    lines = "\r\n".join(json.dumps(event) for event in events) + "\n\n{oops\n"
    for answer, count in (
        (await client.post("/events", json=events), 3),
        (await client.post("/events", json={"events": events}), 3),
        (await client.post("/events", content=lines, headers={"content-type": "application/x-ndjson; charset=utf-8"}), 4),
    ):
        assert answer.status_code == 422
        assert (answer.json()["accepted"], answer.json()["refused"]) == (0, count)
        reasons = [(result["index"], result["reason"]) for result in answer.json()["results"]]
        assert reasons == [(0, "missing_field"), (1, "unknown_event"), (2, "missing_field"), (3, "not_json")][:count]


@pytest.mark.parametrize("body", [GOOD, [GOOD], [GOOD, {"type": "x", "data": {}}]])
async def test_kafka_away(client: httpx.AsyncClient, body: Any) -> None:
    """While Kafka is away a good event is answered 503, soon to be tried again, and nothing was written."""
    answer = await client.post("/events", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] == "Kafka is away, nothing was written"


async def test_ingestion_that_starts_says_so(client: httpx.AsyncClient, board: HealthBoard) -> None:
    """Before the first look at Kafka nobody knows whether it is away."""
    board.report("kafka", UNCHECKED)
    answer = await client.post("/events", json=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"error": "ingestion is starting, nothing was written", "mend": "send the request again later"}
    assert (await client.post("/events", json={"type": "x", "data": {}})).status_code == 422


async def test_health_and_docs(client: httpx.AsyncClient) -> None:
    """Health, metrics and the description of the interface are served while Kafka is away."""
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/health/ready")).status_code == 503
    assert "tidemill_ingestion_responses_total" in (await client.get("/metrics")).text
    assert "/events" in (await client.get("/openapi.json")).json()["paths"]
    assert (await client.get("/docs")).status_code == 200
    assert (await client.get("/events")).status_code == 405
    assert (await client.get("/nothing")).json()["mend"]


def test_split_body() -> None:
    """A body is one event, an array, an object with events, or lines."""
    one = json.dumps(GOOD).encode()
    assert split_body(one, "application/json") == [one]
    assert split_body(b" [" + one + b"," + one + b"]", "application/cloudevents-batch+json") == [one, one]
    assert split_body(b'{"events": [' + one + b"]}", "") == [one]
    assert split_body(one + b"\n\n" + one, "application/x-ndjson") == [one, one]
    with pytest.raises(BadRequest):
        split_body(b"\n", "application/x-ndjson")
