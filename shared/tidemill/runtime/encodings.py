"""Bodies that a client compressed (`Content-Encoding`: gzip, deflate or zstd), on every route of every service.

    app = unpacked(app)

A body is unpacked before the application sees the request, and never to more than LIMIT_BYTES: a small body may hold a large one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import cramjam

from tidemill.errors import BadRequest, BodyTooLarge, UnsupportedEncoding
from tidemill.limits import MESSAGE_BYTES
from tidemill.runtime.asgi import Receive, Scope, Send, respond
from tidemill.runtime.http import error_answer
from tidemill.runtime.routes import Disconnected, read_body

LIMIT_BYTES: Final = 8 * MESSAGE_BYTES
"""As large as the largest body of any route. A route with a lower limit applies it to what was unpacked."""

_GZIP, _ZLIB, _RAW = 31, 15, -15  # `wbits` of zlib
_FULL = "failed to write whole buffer"


def unpacked(app: Any) -> Any:
    """An ASGI application that gives bodies to another one as they were before the client compressed them."""

    async def opened(scope: Scope, receive: Receive, send: Send) -> None:
        coding = _coding(scope) if scope["type"] == "http" else b""
        if not coding:
            await app(scope, receive, send)
            return
        try:
            body = unpack(await read_body(receive, LIMIT_BYTES), coding.decode("latin-1"))
        except Disconnected:
            return
        except Exception as error:
            await respond(send, *error_answer(error))
        else:
            length = (b"content-length", b"%d" % len(body))
            headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length", b"transfer-encoding")]
            await app({**scope, "headers": [*headers, length]}, _whole(body, receive), send)

    return opened


def unpack(body: bytes, coding: str) -> bytes:
    """A body as it was before it was compressed. Raises UnsupportedEncoding, BodyTooLarge, and BadRequest for a body that is not what it is said
    to be, or that stops before its end."""
    if coding not in _CODINGS:
        raise UnsupportedEncoding(coding, _CODINGS)
    return _CODINGS[coding](body)


def _coding(scope: Scope) -> bytes:
    found = b", ".join(value for name, value in scope["headers"] if name == b"content-encoding").strip().lower()
    return b"" if found == b"identity" else found


def _whole(body: bytes, receive: Receive) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Any:
        return messages.pop() if messages else await receive()

    return received


def _gzip(body: bytes) -> bytes:
    return _inflate(body, _GZIP, "gzip")


def _deflate(body: bytes) -> bytes:
    """In the format of RFC 1950, as RFC 9110 says; or without its two bytes of head, as some clients send it."""
    zlib_head = len(body) > 1 and body[0] & 15 == 8 and not int.from_bytes(body[:2], "big") % 31
    return _inflate(body, _ZLIB if zlib_head else _RAW, "deflate")


def _inflate(body: bytes, wbits: int, coding: str) -> bytes:
    parts, size = list[bytes](), 0
    while body or not parts:
        unpacking = zlib.decompressobj(wbits)
        try:
            parts.append(unpacking.decompress(body, LIMIT_BYTES + 1 - size))
        except zlib.error as error:
            raise _broken(coding, str(error)) from None
        size += len(parts[-1])
        if size > LIMIT_BYTES:
            raise BodyTooLarge(LIMIT_BYTES)
        if not unpacking.eof:
            raise _broken(coding, "it stops before its end")
        body = unpacking.unused_data  # several files of gzip, one after the other, are one
    return b"".join(parts)


def _zstd(body: bytes) -> bytes:
    unpacked_body = bytearray(LIMIT_BYTES + 1)
    try:
        size = cramjam.zstd.decompress_into(body, unpacked_body)
    except cramjam.DecompressionError as error:
        if str(error) == _FULL:
            raise BodyTooLarge(LIMIT_BYTES) from None
        raise _broken("zstd", str(error)) from None
    if size > LIMIT_BYTES:
        raise BodyTooLarge(LIMIT_BYTES)
    return bytes(memoryview(unpacked_body)[:size])


def _broken(coding: str, why: str) -> BadRequest:
    return BadRequest(f"the body is not {coding}, as Content-Encoding says: {why}", mend="send it again, or without Content-Encoding")


_CODINGS: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd}
