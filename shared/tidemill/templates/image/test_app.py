"""The page's requests, with two services that only say what they were asked: `pytest`."""

import json
from typing import Any

import app as page
import httpx
import pytest
from data import base64
from fastapi.testclient import TestClient
from project import CLASSES, SIDE

ROWS = [[0.5] * SIDE] * SIDE
RIGHT, OTHER = CLASSES[:2]
ANSWER = {"class": RIGHT, "probabilities": {RIGHT: 0.75, OTHER: 0.25}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """(path, body) of each request to the services, in order."""
    found: list[tuple[str, Any]] = []

    def answered(request: httpx.Request) -> httpx.Response:
        found.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json=ANSWER)

    monkeypatch.setenv("INGESTION", "http://ingestion")
    monkeypatch.setenv("INFERENCE", "http://inference")
    monkeypatch.setattr(page, "client", httpx.AsyncClient(transport=httpx.MockTransport(answered)))
    return found


def test_the_model_is_asked_before_the_picture_is_published(asked: list[tuple[str, Any]]) -> None:
    """Both of one moment, and the truth is told about the same picture."""
    client = TestClient(page.app)
    answer = client.post("/ask", json={"pixels": ROWS}).json()
    assert client.post("/tell", json={"picture": answer["picture"], "digit": OTHER}).is_success
    (_, question), (_, shown), (_, told) = asked
    assert [path for path, _ in asked] == ["/predict/digit", "/events", "/events"]
    assert answer["probabilities"] == ANSWER["probabilities"]
    assert question["subject"] == shown["data"]["picture"] == told["data"]["picture"] == answer["picture"]
    assert question["time"] == shown["data"]["at"] <= told["data"]["at"]
    assert (shown["type"], shown["data"]["pixels"]) == ("myproject.shown", base64(ROWS))
    assert (told["type"], told["data"]["digit"]) == ("myproject.told", OTHER)


def test_a_class_that_there_is_not_is_refused(asked: list[tuple[str, Any]]) -> None:
    """Nothing is published then."""
    assert TestClient(page.app).post("/tell", json={"picture": "p", "digit": "none of them"}).status_code == 422
    assert asked == []


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No script, style or picture of another host."""
    text = TestClient(page.app).get("/").text
    assert "<canvas" in text
    assert "//" not in text.replace("// ", "")
