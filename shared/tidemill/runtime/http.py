"""Serving HTTP: one way to run an ASGI application, one shape for errors.

    async with HttpServer(app, settings) as server:     # inside a running loop; tidemill.runtime.service makes a whole service of it
        ...

Every error that a client sees is `{"error": cause, "mend": remedy}`, with the HTTP status of the TidemillError.
`fastapi_app` needs the extra `http`; the rest does not.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

import msgspec
import uvicorn

from tidemill.errors import MissingExtra, SettingsError, TidemillError
from tidemill.runtime.asgi import OpsApp, Receive, Scope, Send, respond
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import HttpSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["HttpServer", "Receive", "Scope", "Send", "error_answer", "fastapi_app", "respond"]

log = get_logger(__name__)

GRACE_SECONDS = 10  # for requests in progress when a server stops


def error_answer(error: Exception) -> tuple[int, bytes]:
    """HTTP status and JSON body for an error. An error that is no TidemillError is logged, and the client gets no details of it."""
    if isinstance(error, TidemillError):
        return error.http_status, error_body(error.message, error.mend)
    log.error("unexpected error", exc_info=error)
    return 500, _INTERNAL


def error_body(error: str, mend: str) -> bytes:
    """The JSON body of every error answer."""
    return msgspec.json.encode({"error": error, "mend": mend})


_INTERNAL = error_body("internal error", "the service's log has the details")


def _bound_socket(settings: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            mend="free the port, or set TIDEMILL_HOST and TIDEMILL_PORT to others",
        ) from error


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app, interface="asgi3", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS
    )


class _GuestServer(uvicorn.Server):
    """A server that leaves signals to the owner of the loop. `settled` is set once it accepts requests, or has ended without doing so."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class HttpServer:
    """An ASGI application served inside a running loop. `port` is the port it listens on, also when the settings say 0.

    `start` returns once requests are accepted; it raises SettingsError when it cannot listen on the address. `stop` gives requests in
    progress ten seconds to finish.
    """

    def __init__(self, app: Any, settings: HttpSettings) -> None:
        self._settings = settings
        self._server = _GuestServer(_config(app))
        self._task: asyncio.Task[None] | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """Base URL for callers on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listen and serve."""
        listening = _bound_socket(self._settings)
        self.port = listening.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]), name="http-server")
        self._task.add_done_callback(lambda _task: self._server.settled.set())
        await self._server.settled.wait()
        if self._task.done():
            self._task.result()
        log.info("listening", host=self._settings.host, port=self.port)

    async def stop(self) -> None:
        """Stop accepting, finish what is in progress, run the application's shutdown."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def fastapi_app(board: HealthBoard, **options: Any) -> FastAPI:
    """A FastAPI application whose errors have our shape. `add_ops_routes` adds the routes of health and metrics.

    Routes are tried in order: add hot routes to the application first, then call `add_ops_routes`. `options` go to FastAPI.
    Raises MissingExtra when the extra `http` is not installed.
    """
    try:
        from fastapi import FastAPI  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("fastapi", "http") from error
    app = FastAPI(**options)
    app.state.board = board
    _add_error_handlers(app)
    return app


def add_ops_routes(app: FastAPI) -> None:
    """Add `/metrics`, `/health/live` and `/health/ready` after the routes that an application has already."""
    from starlette.routing import Route  # noqa: PLC0415

    ops = OpsApp(app.state.board)
    app.router.routes.extend(Route(path, ops, name=path, include_in_schema=False) for path in OpsApp.PATHS)


def _add_error_handlers(app: FastAPI) -> None:
    from fastapi.exceptions import RequestValidationError  # noqa: PLC0415
    from starlette.exceptions import HTTPException  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415

    def answer(status: int, body: bytes, headers: Any = None) -> Response:
        return Response(body, status, headers, "application/json")

    async def ours(_request: Request, error: Exception) -> Response:
        return answer(*error_answer(error))

    async def unexpected(_request: Request, _error: Exception) -> Response:
        return answer(500, _INTERNAL)  # Starlette raises the error again after this answer, and the server logs it

    async def http(request: Request, error: HTTPException) -> Response:
        mend = {404: "see /docs for the paths", 405: "see /docs for the methods"}.get(error.status_code, "")
        text = f"no such path: {request.url.path}" if error.status_code == 404 and error.detail == "Not Found" else str(error.detail)
        return answer(error.status_code, error_body(text, mend), error.headers)

    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        wrong = "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        return answer(422, error_body(wrong, "see /docs for the shape of the request"))

    app.add_exception_handler(TidemillError, ours)
    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(HTTPException, http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, invalid)  # type: ignore[arg-type]
