"""Routes where microseconds count: plain ASGI inside a FastAPI application, with its errors, its docs and its metrics.

    add_hot_route(app, "/predict/{model}", HotRoute(handle, observe), summary="...", request=Body)

A framework that parses the body for us costs several times as much as the work itself. `handle` gets the scope (path parameters in
`scope["path_params"]`) and the whole body, without a byte order mark, and returns an Answer or raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from tidemill.errors import BadRequest, BodyTooLarge
from tidemill.records import BYTE_ORDER_MARK
from tidemill.runtime.asgi import Receive, Scope, Send
from tidemill.runtime.http import error_answer

if TYPE_CHECKING:
    from fastapi import FastAPI

T = TypeVar("T")

MAX_BODY_BYTES = 1 << 20
RETRY_AFTER_SECONDS = b"1"

Headers = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """The answer to a request."""

    body: bytes
    status: int = 200
    content_type: bytes = b"application/json"
    headers: Headers = ()


Handle = Callable[[Scope, bytes], Awaitable[Answer]]
Observe = Callable[[Scope, int, float], None]
Explain = Callable[[Exception], tuple[int, bytes]]


class Disconnected(Exception):
    """The client went away before its request was complete."""


class HotRoute:
    """One endpoint. `observe` gets the status and the seconds of each answer; `explain` turns an error into status and body.

    An answer 503 carries Retry-After. A body above `limit_bytes` is refused with 413.
    """

    def __init__(self, handle: Handle, observe: Observe, explain: Explain = error_answer, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._handle = handle
        self._observe = observe
        self._explain = explain
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        started = perf_counter()
        try:
            answer = await self._handle(scope, (await read_body(receive, self._limit_bytes)).removeprefix(BYTE_ORDER_MARK))
        except Disconnected:
            return
        except Exception as error:
            answer = self._error(error)
        content_length = (b"content-length", b"%d" % len(answer.body))
        headers = [(b"content-type", answer.content_type), content_length, *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        self._observe(scope, answer.status, perf_counter() - started)

    def _error(self, error: Exception) -> Answer:
        status, body = self._explain(error)
        return Answer(body, status, headers=[(b"retry-after", RETRY_AFTER_SECONDS)] if status == 503 else ())


async def read_body(receive: Receive, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """A request's whole body. Raises BodyTooLarge and Disconnected."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        if not message.get("more_body", False):
            return b"".join([*parts, part]) if parts else part
        parts.append(part)


def decode_body(decode: Callable[[Any], T], body: bytes | msgspec.Raw, mend: str) -> T:
    """What msgspec's `decode` makes of a body. Raises BadRequest."""
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(str(error) if bytes(body) else "the body is empty", mend=mend) from None


def add_hot_route(app: FastAPI, path: str, route: HotRoute, *, summary: str, request: type, methods: Sequence[str] = ("POST",)) -> None:
    """Adds a route after those that an application has already, and describes it in the application's OpenAPI document."""
    from starlette.routing import Route  # noqa: PLC0415 - from the extra `http`, like FastAPI

    app.router.routes.append(Route(path, route, methods=list(methods)))
    plain_openapi = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain_openapi()
        schema = msgspec.json.schema(request, ref_template="#/components/schemas/{name}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(schema.pop("$defs", {}))
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        operation = {"summary": summary, "requestBody": body, "responses": {"200": {"description": "Successful Response"}}}
        document["paths"].setdefault(path, {}).update({method.lower(): operation for method in methods})
        return document

    app.openapi = openapi  # type: ignore[method-assign]
