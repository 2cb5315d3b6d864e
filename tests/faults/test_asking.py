"""The clients of a run under faults."""

from __future__ import annotations

import asyncio

from tests.faults.asking import Clients
from tests.patience import PATIENCE_SECONDS

from tidemill.runtime.settings import KafkaSettings


async def test_what_waits_now_is_waited_for_and_nothing_else() -> None:
    """Clients ask all the time: what is asked later is not waited for, and what was asked before is."""
    clients = Clients(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "http://127.0.0.1:1", 1, 10)
    clients.waiting |= {"c1", "c2"}
    answered = asyncio.create_task(clients.all_answered())
    await asyncio.sleep(0)
    clients.waiting.add("c3")
    clients.waiting.remove("c1")
    await asyncio.sleep(0.2)
    assert not answered.done()
    clients.waiting.remove("c2")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await answered
    assert clients.waiting == {"c3"}
