"""What the checker makes of feature serving's answers, and of none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from tests.faults.logs import PROJECT
from tests.faults.served import ask_insistently, connection

from tidemill.declarations.project import load_project

VIEW = load_project(PROJECT).views["places"]
NAMES = [feature.name for feature in VIEW.served]


@asynccontextmanager
async def serving(refusals: int, *, rebuilding: bool = False) -> AsyncIterator[BaseTestServer]:
    """A server that refuses so often, or tells that the view is rebuilt, before it gives features."""
    left = refusals

    async def answered(request: web.Request) -> web.Response:
        nonlocal left
        left -= 1
        if left >= 0 and not rebuilding:
            return web.Response(status=503)
        (entities,) = msgspec.json.decode(await request.read())["entities"].values()
        columns = [{"values": entities}, *({"values": [1.0] * len(entities)} for _ in NAMES)]
        return web.json_response({"metadata": {"rebuilding": left >= 0}, "results": columns})

    app = web.Application()
    app.router.add_post("/get-online-features", answered)
    async with TestServer(app) as server:
        yield server


@pytest.mark.parametrize("rebuilding", [False, True], ids=["503", "rebuilding"])
async def test_a_moment_without_an_answer_is_waited_for(*, rebuilding: bool) -> None:
    """Serving that cannot answer for a moment, as when Redis is slow, is asked again."""
    async with serving(2, rebuilding=rebuilding) as server, connection(str(server.make_url("/")), 5) as http:
        answer = await ask_insistently(http, VIEW, "places", [b"p1", b"p2"])
    assert answer is not None
    assert answer.values == {key: dict.fromkeys(NAMES, 1.0) for key in (b"p1", b"p2")}


@pytest.mark.parametrize("rebuilding", [False, True], ids=["503", "rebuilding"])
async def test_a_refusal_that_lasts_is_told(*, rebuilding: bool) -> None:
    """Serving that gives nothing for all of the time has no answer."""
    async with serving(1_000_000, rebuilding=rebuilding) as server, connection(str(server.make_url("/")), 5) as http:
        assert await ask_insistently(http, VIEW, "places", [b"p1"], seconds=0.5) is None
