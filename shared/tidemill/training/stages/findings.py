"""What was found wrong with a training set."""

from __future__ import annotations

from typing import Literal

import msgspec

from tidemill.errors import TidemillError


class CheckFinding(msgspec.Struct, frozen=True):
    """Something wrong with an input (empty: with the set)."""

    level: Literal["error", "warning"]
    input: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


class Findings(msgspec.Struct, frozen=True):
    """All that was found; `inputs`: how many were looked at."""

    inputs: int
    found: list[CheckFinding]

    def refuse(self, model: str) -> None:
        """Raises TidemillError when there are errors; it names each."""
        errors = [one for one in self.found if one.level == "error"]
        if errors:
            first, *others = errors
            more = "".join(f"\n  also: {one}" for one in others)
            raise TidemillError(f"model {model!r}: the training set is refused: {first.what}", mend=first.mend + more)
