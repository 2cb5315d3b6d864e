"""What feature serving answers, compared with the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import msgspec
from tests.faults.logcheck import PartitionCheck
from tests.faults.oracle import differing

from tidemill.declarations import FeatureView
from tidemill.kernel.served import serve


class Answer(NamedTuple):
    """An answer of feature serving: the features of some entities at a time."""

    time_ms: int
    values: dict[bytes, dict[str, float | None]]


def connection(url: str, seconds: float) -> aiohttp.ClientSession:
    """A client of a service, whose requests may take so long."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    return aiohttp.ClientSession(
        url, timeout=timeout, headers={"content-type": "application/json"}, connector=aiohttp.TCPConnector(limit=200)
    )


async def ask(http: aiohttp.ClientSession, view: FeatureView, name: str, entities: Sequence[bytes]) -> Answer | None:
    """All features of entities of a view now, which is asked for by a name; None when serving does not give them (it is away, or the view is being rebuilt)."""
    time_ms = time.time_ns() // 1_000_000
    names = [feature.name for feature in view.served]
    given = [int(key) if view.source.base_type(view.key.fields[0]) is int else key.decode() for key in entities]
    body = {"entities": {view.key.name: given}, "features": [f"{name}:{feature}" for feature in names], "as_of": time_ms}
    try:
        async with http.post("/get-online-features", data=msgspec.json.encode(body)) as response:
            said = await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None
    if response.status != HTTPStatus.OK or (answer := msgspec.json.decode(said))["metadata"].get("rebuilding"):
        return None
    columns = dict(zip(names, answer["results"][1:], strict=True))
    return Answer(time_ms, {key: {name: column["values"][row] for name, column in columns.items()} for row, key in enumerate(entities)})


async def ask_insistently(
    http: aiohttp.ClientSession, view: FeatureView, name: str, entities: Sequence[bytes], seconds: float = 10
) -> Answer | None:
    """`ask`, repeated for so long while serving gives no features."""
    until = time.monotonic() + seconds
    while (answer := await ask(http, view, name, entities)) is None and time.monotonic() < until:
        await asyncio.sleep(0.2)
    return answer


def compare(check: PartitionCheck, answer: Answer) -> None:
    """Compares an answer with what the view shows where the fold is."""
    names = [feature.name for feature in check.view.served]
    for key, shown in answer.values.items():
        served = serve(check.view, check.reading(key, answer.time_ms), answer.time_ms)
        expected = dict(zip(names, served.values, strict=True))
        check.tell("different", "features that were served", [(key, wrong) for wrong in differing(expected, shown)])
