"""The faults: what they do to a running stack, and when, by seed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import redis

from tidemill.local.services import SERVICES
from tidemill.local.stack import Stack

PAUSE_SECONDS = {"features": 9.0, "kafka": 5.0, "valkey": 4.0}  # the consumer group gives a member up after six
SERVICE_NAMES = tuple(service.name for service in SERVICES)


class Fault(NamedTuple):
    """A fault in one step of the replay: so long after the step began, of this kind, at these processes."""

    step: int
    delay_seconds: float
    kind: str
    targets: tuple[str, ...]

    @property
    def name(self) -> str:
        """The kind with its targets."""
        return f"{self.kind} {'+'.join(self.targets)}"


def schedule(seed: int, steps: int) -> list[Fault]:
    """Every service and both servers killed, pairs of them too, the store emptied, a worker and the servers paused, writers cut off: in some order.

    No two in one of the steps, of which the first two are left alone.
    """
    pick = random.Random(seed)
    kinds: list[tuple[str, tuple[str, ...]]] = [("kill", (name,)) for name in (*SERVICE_NAMES, "valkey", "kafka")]
    kinds += [("pause", (name,)) for name in PAUSE_SECONDS]
    kinds += [("kill", tuple(pick.sample(SERVICE_NAMES, 2))), ("kill", ("features", "valkey")), ("kill", ("inference", "kafka"))]
    kinds += [("flushall", ("valkey",)), ("cut", ("ingestion",)), ("cut", ("inference",))]
    pick.shuffle(kinds)
    when = sorted(pick.sample(range(2, steps), len(kinds)))
    return [Fault(step, round(pick.uniform(0, 0.6), 3), *kind) for step, kind in zip(when, kinds, strict=True)]


def strike(stack: Stack, fault: Fault) -> float:
    """Does it; returns the moment (monotonic) from which the system may recover."""
    _KINDS[fault.kind](stack, fault.targets)
    return time.monotonic()


def _kill(stack: Stack, targets: tuple[str, ...]) -> None:
    pids = {name: stack.pid(name) for name in targets}
    for pid in pids.values():
        if pid:
            os.kill(pid, signal.SIGKILL)
    for name, pid in pids.items():
        while pid and stack.pid(name) == pid:
            time.sleep(0.02)


def _pause(stack: Stack, targets: tuple[str, ...]) -> None:
    (name,) = targets
    pid = stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(PAUSE_SECONDS[name])
    finally:
        os.kill(pid, signal.SIGCONT)


def _cut(stack: Stack, targets: tuple[str, ...]) -> None:
    """Kills a writer while Kafka is held: what it has sent is written, and it never hears of it."""
    broker = stack.pid("kafka")
    os.kill(broker, signal.SIGSTOP)
    try:
        time.sleep(0.3)
        _kill(stack, targets)
    finally:
        os.kill(broker, signal.SIGCONT)


def _flush(stack: Stack, _targets: tuple[str, ...]) -> None:
    with redis.Redis.from_url(stack.redis_url) as client:
        client.flushall()


_KINDS: dict[str, Callable[[Stack, tuple[str, ...]], None]] = {"kill": _kill, "pause": _pause, "cut": _cut, "flushall": _flush}


async def struck(stack: Stack, fault: Fault) -> float:
    """`strike` after the fault's delay, beside a running loop."""
    await asyncio.sleep(fault.delay_seconds)
    return await asyncio.to_thread(strike, stack, fault)
