"""A client without an answer: is Kafka away, or is the client stuck? And clients that do not want to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tidemill.kafka.client import close_consumer, consumer
from tidemill.kafka.watch import unanswered
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse

pytestmark = pytest.mark.integration


async def test_waiting_for_a_kafka_that_is_away_is_a_sign_of_life() -> None:
    """The reason names the address; the pulse beats."""
    told: list[str] = []
    pulse = Pulse()
    await unanswered(KafkaSettings(bootstrap_servers="127.0.0.1:1"), told.append, pulse, 0.3)
    pulse.tick()
    assert "127.0.0.1:1" in told[0]
    assert pulse.silent_seconds == 0


async def test_a_server_that_says_nothing_is_away_too() -> None:
    """One that takes connections and never answers is waited for, for no longer than the deadline."""
    told: list[str] = []
    pulse = Pulse()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        async with asyncio.timeout(180):
            await unanswered(KafkaSettings(bootstrap_servers=address), told.append, pulse, 0.5)
    pulse.tick()
    assert "was not ready after 0.5 s" in told[0]
    assert pulse.silent_seconds == 0


async def test_a_client_that_kafka_does_not_answer_alone_is_stuck(kafka: str) -> None:
    """When others are answered, waiting is no sign of life."""
    told: list[str] = []
    pulse = Pulse()
    await unanswered(KafkaSettings(bootstrap_servers=kafka), told.append, pulse, 10)
    pulse.tick()
    assert told == ["Kafka answers, but not this client"]
    assert pulse.silent_seconds == 1


async def hangs() -> None:
    """A client that never ends."""
    await asyncio.Event().wait()


async def is_cancelled() -> None:
    """A client that ends in CancelledError, as aiokafka's may."""
    raise asyncio.CancelledError


async def fails() -> None:
    """A client that ends in an error."""
    raise OSError("gone")


@pytest.mark.parametrize("stop", [hangs, is_cancelled, fails])
async def test_a_consumer_is_closed_whatever_its_client_does(
    kafka: str, monkeypatch: pytest.MonkeyPatch, stop: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Neither an error nor a wait without end reaches the worker that closes it."""
    reader = consumer(KafkaSettings(bootstrap_servers=kafka))
    await reader.start()
    end = reader.stop
    monkeypatch.setattr(reader, "stop", stop)
    async with asyncio.timeout(180):
        await close_consumer(reader, 0.2)
    monkeypatch.undo()
    await close_consumer(reader)
    assert reader._closed
    await end()
