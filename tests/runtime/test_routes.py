"""Hot routes as plain ASGI: bodies in pieces, limits, clients that go away, errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import BadRequest, BodyTooLarge, StoreUnavailable
from tidemill.runtime.asgi import Scope
from tidemill.runtime.routes import Answer, Disconnected, HotRoute, decode_body, read_body

Messages = list[dict[str, Any]]


class Call:
    """One request to a route: the body's pieces in, what was sent and observed out."""

    def __init__(self, parts: Sequence[bytes], *, complete: bool = True) -> None:
        self._messages = [
            {"type": "http.request", "body": part, "more_body": i < len(parts) - 1 or not complete} for i, part in enumerate(parts)
        ]
        self._messages.append({"type": "http.disconnect"})
        self.sent: Messages = []
        self.observed: list[int] = []

    async def receive(self) -> dict[str, Any]:
        """The next message of the server."""
        return self._messages.pop(0)

    async def send(self, message: Any) -> None:
        """Take a message of the application."""
        self.sent.append(message)

    def observe(self, _scope: Scope, status: int, seconds: float) -> None:
        """Take an observation."""
        assert seconds >= 0
        self.observed.append(status)

    async def to(self, handle: Any, limit_bytes: int = 100) -> Call:
        """Send the request to a route of this handler."""
        await HotRoute(handle, self.observe, limit_bytes=limit_bytes)({"type": "http"}, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        """The status that was sent."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers that were sent."""
        return dict(self.sent[0]["headers"])


async def echo(_scope: Scope, body: bytes) -> Answer:
    """Answer what came."""
    return Answer(body, headers=[(b"x-kind", b"echo")])


async def test_an_answer_is_one_start_and_one_body() -> None:
    """Status, content type, length, the handler's headers, and the body; it is observed once."""
    call = await Call([b"hello"]).to(echo)
    assert call.headers == {b"content-type": b"application/json", b"content-length": b"5", b"x-kind": b"echo"}
    assert (call.status, call.sent[1]["body"], call.observed) == (200, b"hello", [200])


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
async def test_a_body_may_come_in_any_pieces(parts: list[bytes]) -> None:
    """The pieces are put together; the limit counts all of them, also when no length was announced."""
    whole = b"".join(parts)
    call = Call(parts)
    if len(whole) > 100:
        with pytest.raises(BodyTooLarge, match="100 bytes"):
            await read_body(call.receive, 100)
    else:
        assert await read_body(call.receive, 100) == whole


async def test_a_client_that_goes_away_is_not_answered() -> None:
    """A request that never becomes complete reaches no handler and is not observed."""
    with pytest.raises(Disconnected):
        await read_body(Call([b"x"], complete=False).receive)
    call = await Call([b"x"], complete=False).to(echo)
    assert (call.sent, call.observed) == ([], [])


async def test_errors_become_answers() -> None:
    """Ours with their status, cause and mend, 503 with Retry-After; others as 500 without details."""

    def failing(error: Exception) -> Any:
        async def handle(_scope: Scope, _body: bytes) -> Answer:
            raise error

        return handle

    for error, status, text in (
        (BadRequest("cause", mend="mend"), 400, "cause"),
        (StoreUnavailable("away"), 503, "away"),
        (RuntimeError("secret"), 500, "internal error"),
    ):
        call = await Call([b""]).to(failing(error))
        assert (call.status, json.loads(call.sent[1]["body"])["error"], call.observed) == (status, text, [status])
        assert (b"retry-after" in call.headers) == (status == 503)
    too_large = await Call([b"x" * 60, b"x" * 60]).to(echo)
    assert too_large.status == 413


def test_bodies_that_cannot_be_decoded_say_why() -> None:
    """Empty, malformed, not UTF-8, of a wrong type or too deep: all are BadRequest with the given mend."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    assert decode_body(decode, b'{"a": 1}', "") == {"a": 1}
    for body, text in (
        (b"", "empty"),
        (b"{", "truncated"),
        (b'{"\xff": 1}', "utf-8"),
        (b"[]", "object"),
        (b'{"a":' + b"[" * 9000, "recursion"),
    ):
        with pytest.raises(BadRequest, match=text) as caught:
            decode_body(decode, body, "do this")
        assert caught.value.mend == "do this"


async def test_a_byte_order_mark_is_passed_over() -> None:
    """It stands before the JSON of some programs; only the first one, at the beginning."""
    for body, told in ((b"\xef\xbb\xbf{}", b"{}"), (b"{}\xef\xbb\xbf", b"{}\xef\xbb\xbf"), (b"\xef\xbb", b"\xef\xbb")):
        call = await Call([body]).to(echo)
        assert told in call.sent[1]["body"]
        assert call.status == 200
