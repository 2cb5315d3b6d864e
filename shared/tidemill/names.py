"""The rule for names, which become topics, Redis keys, table folders and columns."""

from __future__ import annotations

import keyword
import re

from tidemill.errors import DeclarationError


def check_name(name: object, where: str, field: str, *, dots: bool = False) -> None:
    """Letters, digits and underscores, not starting with a digit (`dots`: parts of that kind joined by dots). Raises DeclarationError."""
    part = r"[A-Za-z_][A-Za-z0-9_]*"
    pattern = rf"{part}([.-]{part})*" if dots else part
    if not isinstance(name, str) or not re.fullmatch(pattern, name) or len(name) > 120 or keyword.iskeyword(name):
        raise DeclarationError(
            f"{name!r} is not a usable name",
            where=where,
            field=field,
            mend="use letters, digits and underscores, no word of Python's own" + (", parts joined by dots" if dots else ""),
        )
