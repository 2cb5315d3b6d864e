"""A small HTTP load generator: connections that each send the next request when the answer to the last has come.

python -m benchmarks.load HOST PORT PATH CLIENTS SECONDS < bodies      prints a Load as JSON
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
    failures: int
    body_bytes: int


class _Client(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, requests: Iterator[bytes], until: float) -> None:
        self.seconds: list[float] = []
        self.failures = 0
        self.body_bytes = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until = until
        self._answer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = perf_counter()
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
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


async def _run(host: str, port: int, path: str, clients: int, seconds: float, bodies: Sequence[bytes]) -> Load:
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
    requests = cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    loop, started = asyncio.get_running_loop(), perf_counter()
    made = [(await loop.create_connection(lambda: _Client(requests, started + seconds), host, port))[1] for _ in range(clients)]
    await asyncio.gather(*(client.done for client in made))
    taken = sorted(second for client in made for second in client.seconds)
    return Load(
        clients,
        len(taken) / (perf_counter() - started),
        1000 * taken[len(taken) // 2],
        1000 * taken[int(len(taken) * 0.99)],
        sum(client.failures for client in made),
        made[0].body_bytes,
    )


def run_load(url: str, path: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Runs clients in a process of their own against `url` (http://host:port), with bodies (JSON on one line each) in turn."""
    host, _, port = url.removeprefix("http://").partition(":")
    command = [sys.executable, "-m", "benchmarks.load", host, port, path, str(clients), str(seconds)]
    done = subprocess.run(command, input=b"\n".join(bodies), stdout=subprocess.PIPE, check=True, timeout=seconds + 30)
    return msgspec.json.decode(done.stdout, type=Load)


if __name__ == "__main__":
    _, host, port, path, clients, seconds = sys.argv
    bodies = sys.stdin.buffer.read().split(b"\n")
    load = uvloop.run(_run(host, int(port), path, int(clients), float(seconds), bodies))
    sys.stdout.buffer.write(msgspec.json.encode(load))
