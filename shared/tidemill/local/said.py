"""A line of a service's log in words, for the terminal: what happened first, and of an error its kind and its place; the log keeps the rest."""

from __future__ import annotations

from typing import Any

import msgspec

_LEFT_OUT = frozenset({"time", "level", "service", "module", "message", "exception"})
_MOST = 300


def in_words(line: str) -> str:
    """The line as a sentence of a few hundred letters at most; one that is no JSON of a service is only shortened."""
    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return _short(line)
    if not isinstance(said, dict) or "message" not in said:
        return _short(line)
    more = [f"{name}={value}" for name, value in said.items() if name not in _LEFT_OUT]
    return " ".join(
        [str(said.get("level", "")) + ":", _short(" ".join([str(said["message"]), *more])), _error(said.get("exception"))]
    ).strip()


def _error(raised: Any) -> str:
    """The last error of a trace, and where it was raised."""
    try:
        last = raised[0]
        frame = last["frames"][-1]
        return f"{last['exc_type']}: {_short(last['exc_value'])} ({frame['filename']}:{frame['lineno']}, {frame['name']})"
    except (IndexError, KeyError, TypeError):
        return ""


def _short(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} ... {text[-_MOST // 2 :]}"
