"""A small HTTP load generator: connections that each send the next request when the answer to the last has come, or at a steady pace.

python -m benchmarks.load HOST PORT PATH CLIENTS SECONDS PER_SECOND < bodies      prints a Load as JSON (PER_SECOND 0: as fast as answers come)
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from time import perf_counter
from typing import cast

import msgspec
import uvloop


class Load(msgspec.Struct):
    """What a run of clients saw. Milliseconds are per request."""

    clients: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    most_ms: float
    failures: int
    body_bytes: int


class _Client(asyncio.Protocol):
    """One connection, kept alive. `first`: when to begin, `period`: seconds from one request to the next (0: at once); a request that has to
    wait for the answer before it counts from the moment when it was due."""

    def __init__(self, requests: Iterator[bytes], first: float, until: float, period: float) -> None:
        self.seconds: list[float] = []
        self.failures = 0
        self.body_bytes = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until = until
        self._period = period
        self._answer = b""
        self._sent, self._due = 0.0, first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._wait_until(max(self._due, perf_counter()))

    def _go_on(self) -> None:
        self._wait_until(self._due + self._period if self._period else perf_counter())

    def _wait_until(self, due: float) -> None:
        self._due, now = due, perf_counter()
        if due > now:
            asyncio.get_running_loop().call_later(due - now, lambda: self._send(perf_counter()))
        else:
            self._send(due)

    def _send(self, since: float) -> None:
        self._sent = since
        if self._sent > self._until:
            self._transport.close()
        else:
            self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        if len(body) >= length:
            self.seconds.append(perf_counter() - self._sent)
            self.failures += not self._answer.startswith(b"HTTP/1.1 200")
            self.body_bytes, self._answer = length, b""
            self._go_on()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


async def _connect(client: _Client, host: str, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: client, host, port)


async def _run(host: str, port: int, path: str, clients: int, seconds: float, per_second: float, bodies: Sequence[bytes]) -> Load:
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
    requests = cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    started, period = perf_counter(), clients / per_second if per_second else 0.0
    made = [  # evenly spread: all at once, each would wait for the others
        _Client(requests, started + number * period / clients, started + seconds, period) for number in range(clients)
    ]
    await asyncio.gather(*(_connect(client, host, port) for client in made))
    await asyncio.gather(*(client.done for client in made))
    taken = sorted(second for client in made for second in client.seconds)
    return Load(
        clients,
        len(taken) / (perf_counter() - started),
        1000 * taken[len(taken) // 2],
        1000 * taken[int(len(taken) * 0.99)],
        1000 * taken[-1],
        sum(client.failures for client in made),
        made[0].body_bytes,
    )


def run_load(url: str, path: str, bodies: Sequence[bytes], clients: int, seconds: float, per_second: float = 0) -> Load:
    """Runs clients in a process of their own against `url` (http://host:port), with bodies (JSON on one line each) in turn."""
    host, _, port = url.removeprefix("http://").partition(":")
    command = [sys.executable, "-m", "benchmarks.load", host, port, path, str(clients), str(seconds), str(per_second)]
    done = subprocess.run(command, input=b"\n".join(bodies), stdout=subprocess.PIPE, check=True, timeout=seconds + 30)
    return msgspec.json.decode(done.stdout, type=Load)


if __name__ == "__main__":
    _, host, port, path, clients, seconds, per_second = sys.argv
    bodies = sys.stdin.buffer.read().split(b"\n")
    load = uvloop.run(_run(host, int(port), path, int(clients), float(seconds), float(per_second), bodies))
    sys.stdout.buffer.write(msgspec.json.encode(load))
