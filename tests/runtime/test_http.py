"""Serving HTTP: starting and stopping, and the one shape of errors."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from typing import Any

import fastapi
import httpx
import pytest
from pydantic import BaseModel
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import BadRequest, SettingsError, StoreUnavailable, UnknownModel
from tidemill.runtime.asgi import OpsApp, respond
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.http import HttpServer, add_ops_routes, error_answer, fastapi_app
from tidemill.runtime.settings import HttpSettings

ANY_PORT = HttpSettings(host="127.0.0.1", port=0)


class Body(BaseModel):
    """What the test route takes."""

    number: int


@pytest.fixture
def app() -> fastapi.FastAPI:
    """Return an application with one good route and one for each way to fail."""
    made = fastapi_app(HealthBoard("kafka"), title="test")

    @made.get("/ours")
    async def ours() -> None:
        raise UnknownModel("late", ["flight_late"])

    @made.get("/away")
    async def away() -> None:
        raise StoreUnavailable("Redis is away", mend="retry")

    @made.get("/unexpected")
    async def unexpected() -> None:
        raise ZeroDivisionError("secret detail")

    @made.get("/teapot")
    async def teapot() -> None:
        raise fastapi.HTTPException(418, "I am a teapot", {"x-brew": "no"})

    @made.post("/number")
    async def number(body: Body) -> int:
        return body.number

    add_ops_routes(made)
    return made


@pytest.fixture
async def client(app: fastapi.FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the application, without a network."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/ours", 404, "unknown model 'late'"),
        ("GET", "/away", 503, "Redis is away"),
        ("GET", "/unexpected", 500, "internal error"),
        ("GET", "/teapot", 418, "I am a teapot"),
        ("GET", "/nowhere", 404, "no such path: /nowhere"),
        ("GET", "/number", 405, "Method Not Allowed"),
    ],
)
async def test_every_error_has_one_shape(client: httpx.AsyncClient, method: str, path: str, status: int, error: str) -> None:
    """Whatever goes wrong, the client reads error and mend; nothing inner leaks."""
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert set(answer.json()) == {"error", "mend"}
    assert "secret" not in answer.text


async def test_a_body_of_the_wrong_shape_is_explained(client: httpx.AsyncClient) -> None:
    """The field at fault is named."""
    answer = await client.post("/number", json={"number": "many"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("body.number: ")
    assert (await client.post("/number", json={"number": 3})).json() == 3


async def test_headers_of_an_http_exception_survive(client: httpx.AsyncClient) -> None:
    """A framework's own exception keeps its headers."""
    assert (await client.get("/teapot")).headers["x-brew"] == "no"


async def test_ops_routes_are_part_of_the_application(app: fastapi.FastAPI, client: httpx.AsyncClient) -> None:
    """Health and metrics answer beside the routes, behind them in order, and outside the documented schema."""
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/health/ready")).status_code == 503
    app.state.board.up("kafka")
    assert (await client.get("/health/ready")).status_code == 200
    assert "tidemill_dependency_up" in (await client.get("/metrics")).text
    assert "/metrics" not in (await client.get("/openapi.json")).json()["paths"]
    assert [getattr(route, "path", None) for route in app.router.routes[-3:]] == list(OpsApp.PATHS)


def test_plain_applications_answer_errors_alike() -> None:
    """The function behind plain ASGI routes gives the same statuses and bodies."""
    assert error_answer(BadRequest("no", mend="do")) == (400, b'{"error":"no","mend":"do"}')
    status, body = error_answer(ValueError("secret"))
    assert status == 500
    assert b"secret" not in body


async def test_a_server_runs_inside_a_loop_and_stops() -> None:
    """It takes a free port, answers, and nothing listens after it has stopped."""
    async with HttpServer(OpsApp(HealthBoard()), ANY_PORT) as server:
        assert server.port > 0
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            answers = await asyncio.gather(*(client.get(f"{server.url}/health/live") for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_guest_server_leaves_signals_alone() -> None:
    """Whoever owns the loop keeps its handlers."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with HttpServer(OpsApp(HealthBoard()), ANY_PORT):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_requests_in_progress_finish_when_the_server_stops() -> None:
    """Stopping waits for what was begun."""
    begun = asyncio.Event()

    async def slow(_scope: Any, _receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.sleep(0.2)
        await respond(send, 200, b'"done"')

    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        async with HttpServer(slow, ANY_PORT) as server:
            asking = asyncio.create_task(client.get(server.url))
            await begun.wait()
        assert (await asking).json() == "done"


async def test_the_lifespan_of_an_application_is_run() -> None:
    """Start and stop of a FastAPI application happen around serving."""
    happened = []

    async def lifespan(_app: fastapi.FastAPI) -> AsyncIterator[None]:
        happened.append("start")
        yield
        happened.append("stop")

    from contextlib import asynccontextmanager

    async with HttpServer(fastapi_app(HealthBoard(), lifespan=asynccontextmanager(lifespan)), ANY_PORT):
        assert happened == ["start"]
    assert happened == ["start", "stop"]


async def test_a_taken_port_is_an_error_with_a_mend() -> None:
    """The address and the variables to change are named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = HttpSettings(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{settings.port}") as caught:
            await HttpServer(OpsApp(HealthBoard()), settings).start()
        assert "TIDEMILL_PORT" in caught.value.mend
