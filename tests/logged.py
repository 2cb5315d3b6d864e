"""Log lines of services that may be writing meanwhile, and those among them that tell of a fault."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

BUSY = "Kafka answers, but not this client"
"""What a service says when a busy machine did not answer it in time."""


def whole_lines(written: bytes) -> list[dict[str, Any]]:
    """The lines of JSON of a log. What comes after the last end of a line is still being written."""
    return [msgspec.json.decode(line) for line in written.split(b"\n")[:-1] if line.startswith(b"{")]


def faults(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our own warnings and errors. aiokafka complains of connections that were not closed in time; a busy machine is no fault."""
    return [
        line
        for line in lines
        if line["level"] not in ("info", "debug") and line["module"].startswith("tidemill") and line.get("reason") != BUSY
    ]
