"""What the simulator models beside the twins behaves as the real thing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP
from tests.simulation.broker import Broker, Client
from tests.simulation.loop import SimLoop
from tests.simulation.network import Process


async def test_only_who_hears_of_it_connects_anew() -> None:
    """After a log was replaced every request on the old connection fails, until its client has heard of one that failed."""
    loop, tp = SimLoop(), TP("t", 0)  # type: ignore[abstract]
    broker = Broker("t", 1, random.Random(0))
    broker.logs[tp].append(b"k", b"v")
    client = Client(Process(loop, random.Random(0), "x"), broker)
    arrived: list[tuple[Any, ...]] = []

    async def at_once(link: Any, effect: Any, *args: Any) -> Any:
        arrived.append((effect, *args))
        return effect(*args)

    client.process.ask = at_once  # type: ignore[method-assign]
    assert await client.held([tp]) == {tp: range(1)}
    broker.epoch += 1
    for _ in range(2):  # what is under way comes late, and nobody hears what becomes of it
        with pytest.raises(KafkaConnectionError):
            arrived[0][0](*arrived[0][1:])
    with pytest.raises(KafkaConnectionError):
        await client.held([tp])
    assert await client.held([tp]) == {tp: range(1)}
