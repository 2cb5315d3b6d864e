"""Work in a thread that is never left alone: `records = await to_its_end(table.append, rows)`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """The result of `work`, done in a thread. A cancellation waits until it has ended, for a thread cannot be stopped.

    So what a worker writes is written before another worker takes its place. What the thread raises after a cancellation is lost.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
