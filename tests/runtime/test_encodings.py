"""Compressed bodies: unpacked within a bound on every route, or refused in words."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import cramjam
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.errors import BadRequest, BodyTooLarge, UnsupportedEncoding
from tidemill.runtime.encodings import LIMIT_BYTES, unpack, unpacked
from tidemill.runtime.routes import Answer, HotRoute


def raw_deflate(body: bytes) -> bytes:
    """Without the head and the sum of zlib."""
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(body) + packing.flush()


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate),
    ("zstd", lambda body: bytes(cramjam.zstd.compress(body))),
]  # fmt: skip
EACH = pytest.mark.parametrize(("coding", "pack"), PACKED, ids=["gzip", "x-gzip", "deflate", "raw", "zstd"])


async def _echo(scope: Any, body: bytes) -> Answer:
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    return Answer(json.dumps({"body": body.decode("latin-1"), "headers": headers}).encode())


def client(limit_bytes: int = 1000) -> httpx.AsyncClient:
    """Of a route that answers with what it got."""
    app = unpacked(HotRoute(_echo, lambda *_: None, limit_bytes=limit_bytes))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


@EACH
@given(body=st.binary(max_size=500))
def test_what_was_packed_is_unpacked(coding: str, pack: Callable[[bytes], bytes], body: bytes) -> None:
    """Whatever the body is, an empty one too."""
    assert unpack(pack(body), coding) == body


@EACH
@given(body=st.binary(min_size=1, max_size=200), cut=st.integers(1, 6))
def test_a_body_that_stops_before_its_end(coding: str, pack: Callable[[bytes], bytes], body: bytes, cut: int) -> None:
    """It is refused, never taken for a shorter one."""
    packed = pack(body)
    with pytest.raises(BadRequest, match=f"not {coding.removeprefix('x-')}"):
        unpack(packed[: max(len(packed) - cut, 0)], coding)


@pytest.mark.slow
@EACH
def test_a_bomb(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """No more is unpacked than the limit; exactly as much is taken."""
    assert len(unpack(pack(bytes(LIMIT_BYTES)), coding)) == LIMIT_BYTES
    with pytest.raises(BodyTooLarge):
        unpack(pack(bytes(LIMIT_BYTES + 1)), coding)
    with pytest.raises(BodyTooLarge):
        unpack(pack(bytes(40 * LIMIT_BYTES)), coding)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_another_format_than_was_said(coding: str) -> None:
    """Plain JSON under a Content-Encoding is told as that."""
    with pytest.raises(BadRequest, match="as Content-Encoding says"):
        unpack(b'{"type": "paid"}', coding)


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "nonsense"])
def test_what_is_not_taken(coding: str) -> None:
    """It is told with what is."""
    with pytest.raises(UnsupportedEncoding) as told:
        unpack(b"x", coding)
    assert told.value.http_status == 415
    assert "zstd" in told.value.mend


def test_files_of_gzip_one_after_the_other() -> None:
    """They are one body, and share one limit."""
    assert unpack(gzip.compress(b"one") + gzip.compress(b"two"), "gzip") == b"onetwo"
    half = gzip.compress(bytes(LIMIT_BYTES // 2 + 1))
    with pytest.raises(BodyTooLarge):
        unpack(half + half, "gzip")


@EACH
async def test_a_route_sees_the_body_as_it_was(coding: str, pack: Callable[[bytes], bytes]) -> None:
    """With its own length, and no word of how it came; header names in any case."""
    async with client() as asking:
        answer = await asking.post("/", content=pack(b"as it was"), headers={"CONTENT-Encoding": coding.upper()})
    assert answer.json()["body"] == "as it was"
    assert answer.json()["headers"]["content-length"] == "9"
    assert "content-encoding" not in answer.json()["headers"]


async def test_a_route_applies_its_own_limit() -> None:
    """To what was unpacked."""
    async with client(limit_bytes=100) as asking:
        taken = await asking.post("/", content=gzip.compress(bytes(100)), headers={"content-encoding": "gzip"})
        refused = await asking.post("/", content=gzip.compress(bytes(101)), headers={"content-encoding": "gzip"})
    assert (taken.status_code, refused.status_code) == (200, 413)


async def test_refusals_have_the_shape_of_every_error() -> None:
    """Status, cause and mend."""
    async with client() as asking:
        broken = await asking.post("/", content=b"x", headers={"content-encoding": "gzip"})
        unknown = await asking.post("/", content=b"x", headers={"content-encoding": "br"})
        plain = await asking.post("/", content=b"x", headers={"content-encoding": "identity"})
    assert [broken.status_code, unknown.status_code, plain.status_code] == [400, 415, 200]
    assert set(broken.json()) == set(unknown.json()) == {"error", "mend"}
