"""first("status") and last("status") of a text field: the side values that keep one text with the time of its event.

`Last` and `First` take these kinds in place of their numbers when their column is a text field (`Aggregation.over_text`).
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from tidemill.declarations.slots import SideKind
from tidemill.limits import TEXT_CHARACTERS

_TIME = struct.Struct("<q")
_CHARACTER_BYTES = 4  # of UTF-8, at most


@dataclass(frozen=True)
class OneText(SideKind):
    """Time of one event in ms, and what is kept of its text, in UTF-8."""

    reads = frozenset({"text", "time"})

    @property
    def most_bytes(self) -> int:
        """The length of a time and of the longest text."""
        return _TIME.size + _CHARACTER_BYTES * TEXT_CHARACTERS

    @abstractmethod
    def replaces(self, time_ms: int, held_ms: int) -> bool:
        """Whether an event at `time_ms` takes the place of one that arrived before it, at `held_ms`."""

    def add(self, held: bytes, time_ms: int, value: float | str) -> bytes:
        """The event's text, if it is the first one or takes the place of the one before."""
        if held and not self.replaces(time_ms, _TIME.unpack_from(held)[0]):
            return held
        return _TIME.pack(time_ms) + kept(str(value)).encode()

    def show(self, held: bytes) -> str:
        """The text, quoted."""
        return repr(text_of(held)) if held else ""


@dataclass(frozen=True)
class NewestText(OneText):
    """The text of the newest event. Of two events at one time, the one that arrived later is the newer."""

    word = "last_text"

    def replaces(self, time_ms: int, held_ms: int) -> bool:
        """Unless it is older."""
        return time_ms >= held_ms

    def merge(self, held: Sequence[bytes]) -> bytes:
        """That of the last tile that has one, since tiles come in order of time."""
        return held[-1] if held else b""


@dataclass(frozen=True)
class OldestText(OneText):
    """The text of the oldest event. Of two events at one time, the one that arrived first is the older."""

    word = "first_text"

    def replaces(self, time_ms: int, held_ms: int) -> bool:
        """If it is older."""
        return time_ms < held_ms

    def merge(self, held: Sequence[bytes]) -> bytes:
        """That of the first tile that has one, since tiles come in order of time."""
        return held[0] if held else b""


def kept(text: str) -> str:
    """What is kept of a text: its first TEXT_CHARACTERS characters."""
    return text[:TEXT_CHARACTERS]


def text_of(held: bytes) -> str:
    """The text of a side value that is not empty."""
    return held[_TIME.size :].decode()
