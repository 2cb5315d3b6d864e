"""Threads that are never left alone."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.patience import PATIENCE_SECONDS

from tidemill.runtime.threads import to_its_end


async def test_gives_the_result_or_the_error() -> None:
    """Arguments go in; what the work returns or raises comes out."""
    assert await to_its_end(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await to_its_end(int, "x")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancellation_waits_for_the_end(fails: bool) -> None:
    """The caller is cancelled once the work has ended, well or badly."""
    begun, may_end, ended = asyncio.Event(), threading.Event(), list[int]()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        may_end.wait(PATIENCE_SECONDS)
        ended.append(1)
        if fails:
            raise ValueError("nobody hears it")

    caller = asyncio.create_task(to_its_end(work))
    await begun.wait()
    caller.cancel()
    await asyncio.wait({caller}, timeout=0.1)
    assert (caller.done(), ended) == (False, [])
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [1]
