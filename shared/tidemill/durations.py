"""Durations as text ("5m", "1h", "7d") and in milliseconds."""

from __future__ import annotations

import re

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = re.compile(r"(\d+)\s*(ms|s|m|h|d)")


def parse_ms(text: str) -> int:
    """Milliseconds of a duration such as "30s", "5m", "24h" or "7d". Raises ValueError for anything else."""
    match = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(f'{text!r} is not a duration; write a whole number and a unit, such as "30s", "5m", "24h" or "7d"')
    return int(match[1]) * UNITS_MS[match[2]]


def format_ms(duration_ms: int) -> str:
    """The shortest exact text of a duration: "1h" for 3_600_000."""
    for unit in ("d", "h", "m", "s"):
        if duration_ms % UNITS_MS[unit] == 0 and duration_ms:
            return f"{duration_ms // UNITS_MS[unit]}{unit}"
    return f"{duration_ms}ms"
