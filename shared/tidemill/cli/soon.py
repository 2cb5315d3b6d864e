"""Lines of `tidemill status` about what servers know: asked for within a few seconds, since the other lines stand without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tidemill.errors import TidemillError

T = TypeVar("T")

SECONDS = 5.0


def said_soon(what: str, asking: Callable[[], Coroutine[Any, Any, T]], told: Callable[[T], str]) -> str:
    """`what: ` and what is told of the answer; or that it is not known, and why."""

    async def in_time() -> T:
        async with asyncio.timeout(SECONDS):
            return await asking()

    try:
        answer = asyncio.run(in_time())
    except (TidemillError, TimeoutError) as error:
        return f"{what}: not known ({getattr(error, 'message', None) or f'no answer within {SECONDS:g} s'})"
    return f"{what}: {told(answer)}"
