"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

from tidemill.errors import TidemillError


def to_ms(text: str) -> int:
    """Epoch ms of an ISO date or time; UTC unless it says otherwise. Raises TidemillError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TidemillError(f"{text!r} is not a date or time", mend='write for example "2013-06-01" or "2013-06-01T12:00"') from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
