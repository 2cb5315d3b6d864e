"""Questions to a service, many a second while a test waits: plain HTTP, each on a connection of its own, since a service may be restarted any time."""

from __future__ import annotations

import time
from typing import Any

import httpx
from tests.patience import PATIENCE_SECONDS

# Without `verify` a client reads the machine's certificates first: 25 ms of a processor for each question.
_CLIENT = httpx.Client(trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))  # noqa: S501 - plain HTTP


def get(url: str, timeout: float = PATIENCE_SECONDS) -> httpx.Response:
    """GET. Raises httpx.HTTPError."""
    return _CLIENT.get(url, timeout=timeout)


def post(url: str, json: Any, timeout: float = PATIENCE_SECONDS) -> httpx.Response:
    """POST of a JSON body, repeated while the service says that a server is away, as clients do: on a busy machine one may be slow to answer.
    Raises httpx.HTTPError."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (answer := _CLIENT.post(url, json=json, timeout=timeout)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return answer
