"""One door for every service: a check refuses callers on every route, hot ones included, before the application hears of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import TidemillError, Unavailable
from tidemill.runtime.asgi import OpsApp, Receive, Scope, Send
from tidemill.runtime.door import OPEN, door
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import HttpServer
from tidemill.runtime.service import Service
from tidemill.runtime.settings import HttpSettings

ROOT = Path(__file__).parents[2]
SERVICES = {
    "audit": "AuditSettings",
    "drift": "DriftSettings",
    "features": "FeaturesSettings",
    "inference": "InferenceSettings",
    "ingestion": "IngestionSettings",
    "offline": "OfflineWriterSettings",
    "predlog": "PredictionLogSettings",
    "retraining": "RetrainingSettings",
    "serving": "ServingSettings",
}


class Stranger(TidemillError):
    """The caller is not known."""

    http_status: ClassVar[int] = 401


def refuse(scope: Scope) -> None:
    """A check that knows only who brings the word."""
    if (b"authorization", b"Bearer word") not in scope["headers"]:
        raise Stranger("nobody knows you", mend="bring the word")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All that any service needs; nothing listens there."""
    for name, value in {
        "TIDEMILL_PROJECT": str(ROOT / "tests" / "demo_project"),
        "TIDEMILL_OFFLINE": str(tmp_path),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1",
        "TIDEMILL_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)


def built(name: str) -> Service:
    """A service as its process builds it."""
    settings = getattr(import_module(f"tidemill_{name}.settings"), SERVICES[name]).load()
    service: Service = import_module(f"tidemill_{name}.app").build(settings)
    return service


def routes_of(router: Any) -> Iterator[Any]:
    """Every route of a router, those of the routers it includes among them."""
    for route in getattr(router, "routes", ()):
        if included := getattr(route, "original_router", None):
            yield from routes_of(included)
        else:
            yield route


def requests(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of every route an application has, and of one that it has not."""
    yield from (("GET", path) for path in (*OpsApp.PATHS, "/positions", "/nowhere"))
    for route in routes_of(app):
        path = re.sub(r"{\w+(:\w+)?}", "x", route.path)
        yield from ((method, path) for method in route.methods or ("GET",))


def test_no_service_is_forgotten() -> None:
    """The services are those that the folder has; training is a command and answers nobody."""
    assert {path.name.removeprefix("tidemill_") for path in (ROOT / "services").glob("tidemill_*")} - {"training"} == set(SERVICES)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", SERVICES)
async def test_a_check_refuses_every_route_of_every_service(name: str) -> None:
    """Each route answers 401 in the shape of every error, and the application is not asked; health alone stays open."""
    service, reached = built(name), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        await service.app(scope, receive, send)

    asked = set(requests(service.app))
    assert len(asked) >= 5
    transport = httpx.ASGITransport(app=door(app, refuse))
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        for method, path in sorted(asked):
            answer = await client.request(method, path)
            if path in OPEN:
                assert answer.status_code in (200, 405, 503), path
                continue
            assert answer.status_code == 401, path
            assert method == "HEAD" or answer.json() == {"error": "nobody knows you", "mend": "bring the word"}
        assert set(reached) <= OPEN
        known = await client.get("/metrics", headers={"authorization": "Bearer word"})
    assert (known.status_code, reached[-1]) == (200, "/metrics")


@pytest.mark.usefixtures("environment")
def test_hot_routes_are_among_them() -> None:
    """The routes that no framework binds are routes of their applications like any other."""
    hot = {("inference", "/predict/x"), ("inference", "/v2/models/x/infer"), ("ingestion", "/events"), ("serving", "/get-online-features")}
    assert not [(name, path) for name, path in hot if ("POST", path) not in set(requests(built(name).app))]


def test_without_a_check_the_door_is_the_application() -> None:
    """It costs nothing, since it is nothing."""
    app = OpsApp(HealthBoard())
    assert door(app) is app


async def test_a_check_that_breaks_lets_nobody_in() -> None:
    """An error that nobody thought of is a refusal too, without its details; one of a dependency says so."""

    def broken(scope: Scope) -> None:
        raise Unavailable("keys are away") if scope["path"] == "/metrics" else ZeroDivisionError

    transport = httpx.ASGITransport(app=door(OpsApp(HealthBoard()), broken))
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        assert (await client.get("/metrics")).status_code == 503
        answer = await client.get("/other")
        assert (answer.status_code, answer.json()["error"]) == (500, "internal error")
        assert (await client.get("/health/live")).status_code == 200


async def test_a_websocket_is_refused_in_its_own_way() -> None:
    """It is closed before it is accepted; a lifespan passes unchecked."""
    sent, passed = list[Any](), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed.append(scope["type"])

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    checked = door(app, refuse)
    await checked({"type": "websocket", "path": "/live", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "nobody knows you"}]
    await checked({"type": "lifespan"}, receive, send)
    assert passed == ["lifespan"]


async def test_through_a_real_server() -> None:
    """A refused client can go on with its connection."""
    server = HttpServer(door(OpsApp(HealthBoard()), refuse), HttpSettings(port=0))
    async with server, httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        assert (await client.post("/metrics", content=b"x" * 100_000)).status_code == 401
        assert (await client.get("/metrics", headers={"authorization": "Bearer word"})).status_code == 200


def test_nobody_serves_past_the_door() -> None:
    """Only the runtime makes a server; services hand it an application."""
    used = [
        path.relative_to(ROOT).as_posix()
        for folder in ("shared", "services")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if re.search(r"\bHttpServer\(|uvicorn\.(run|Server)\(|run_workers\(", path.read_text())
    ]
    assert used == ["shared/tidemill/runtime/http.py", "shared/tidemill/runtime/service.py"]
