"""Faults between the services and their servers: cut, half-open, slow, replies lost after the fact."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

from tests.faults.injections.injection import Injection, Missed, Rig, until
from tests.faults.injections.proxy import Proxy
from tests.faults.injections.workers import kill_now

SERVERS = ("valkey", "kafka")
WRITES: dict[str, Callable[[bytes], bool]] = {
    "valkey": lambda data: b"EVALSHA" in data,
    "kafka": lambda data: data[4:6] == b"\0\0",  # behind its length a request has its kind: 0 is produce
}
_ROWS, _INVARIANTS = ("18",), ("I1", "I2", "I6")


def _proxy(rig: Rig, server: str) -> Proxy:
    return rig.redis if server == "valkey" else rig.kafka


def _needs(server: str) -> frozenset[str]:
    return frozenset({"redis proxy" if server == "valkey" else "kafka proxy"})


def cut(server: str) -> Injection:
    """All connections are reset, once or several times."""

    def strike(rig: Rig, rng: random.Random) -> str:
        times = rng.randint(1, 5)
        found = 0
        for _ in range(times):
            found += _proxy(rig, server).cut()
            time.sleep(rng.uniform(0, 0.5))
        return f"{found} connections to {server} cut in {times} goes"

    return Injection(f"link to {server}: cut", strike, (server,), _ROWS, _INVARIANTS, _needs(server), seconds=1)


def half_open(server: str, seconds: tuple[float, float] = (2.0, 8.0)) -> Injection:
    """Nothing comes through and nothing is closed; then what was on its way is lost."""

    def strike(rig: Rig, rng: random.Random) -> str:
        held, proxy = rng.uniform(*seconds), _proxy(rig, server)
        proxy.silence()
        try:
            time.sleep(held)
        finally:
            proxy.silence(False)
        return f"{server} half-open for {held:.1f} s"

    return Injection(f"link to {server}: half-open", strike, (server,), _ROWS, _INVARIANTS, _needs(server), seconds=sum(seconds) / 2)


def slow(server: str, what: str, *, latency_seconds: float = 0.0, bytes_per_second: float = 0.0, seconds: float = 4.0) -> Injection:
    """Everything takes its time for a while."""

    def strike(rig: Rig, _rng: random.Random) -> str:
        proxy = _proxy(rig, server)
        proxy.slow(latency_seconds, bytes_per_second)
        try:
            time.sleep(seconds)
        finally:
            proxy.slow()
        return f"{what} to {server} for {seconds:g} s"

    return Injection(f"link to {server}: {what}", strike, (server,), _ROWS, _INVARIANTS, _needs(server), seconds=seconds)


def replies_lost(server: str, patience_seconds: float = 10.0) -> Injection:
    """The next few writes are carried out, and nobody hears of it: whoever asked asks again."""

    def strike(rig: Rig, rng: random.Random) -> str:
        proxy, replies = _proxy(rig, server), rng.randint(1, 5)
        proxy.rob(WRITES[server], replies)
        with suppress(TimeoutError):
            until(lambda: not proxy.to_rob, "replies are lost", patience_seconds)
        lost = replies - proxy.to_rob
        proxy.rob(WRITES[server], 0)
        if not lost:
            raise Missed(f"nothing was written to {server} within {patience_seconds:g} s")
        return f"{lost} replies of {server} lost"

    return Injection(f"link to {server}: replies lost", strike, (server,), ("17",), ("I1",), _needs(server), seconds=2)


def _slow_while_joining(rig: Rig, _rng: random.Random) -> str:
    rig.redis.slow(latency_seconds=2.5)  # per chunk and direction: beyond the three seconds a worker waits for an answer
    try:
        kill_now(rig, "features")
        time.sleep(9)
    finally:
        rig.redis.slow()
    return "fences could not be read in time while a worker began"


SLOW_FENCES = Injection(
    "link to valkey: too slow for a beginning worker", _slow_while_joining, ("valkey", "features"), ("24",), ("I2", "I6"), _needs("valkey"), 9
)  # fmt: skip
