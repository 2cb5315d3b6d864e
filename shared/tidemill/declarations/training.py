"""How a model is trained, where the defaults are not wanted. Only Python knows it: it is not in the catalogue, and changes nothing that serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from tidemill.declarations.checks import Declaration


@dataclass(frozen=True, eq=False)
class Training(Declaration):
    """`segments`: fields by whose values the quality is shown too: fields that a request gives, or inputs by name; without any, the inputs
    that are few texts."""

    _: KW_ONLY
    segments: Sequence[str] = ()
