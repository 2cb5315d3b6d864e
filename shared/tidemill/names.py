"""The rule for names, which become topics, Redis keys, table folders and columns."""

from __future__ import annotations

import keyword
import re
from typing import NewType

from tidemill.errors import DeclarationError

LogName = NewType("LogName", str)
"""A view with one partition count, `<view>.p<partitions>`: the name in its topic, keys, table and stamps. Another count is another log."""


def log_name(view: str, partitions: int) -> LogName:
    """The name of a view's log with this number of partitions."""
    return LogName(f"{view}.p{partitions}")


def parse_log(log: str) -> tuple[str, int] | None:
    """The view and the partition count in the name of a log; None for any other text."""
    view, _, partitions = log.rpartition(".p")
    return (view, int(partitions)) if view and re.fullmatch("[1-9][0-9]{0,8}", partitions) else None


def check_name(name: object, where: str, field: str, *, dots: bool = False) -> None:
    """Raises DeclarationError unless a name has only letters, digits and underscores and does not begin with a digit.

    `dots`: it may have several such parts, joined by dots or dashes.
    """
    part = r"[A-Za-z_][A-Za-z0-9_]*"
    pattern = rf"{part}([.-]{part})*" if dots else part
    if not isinstance(name, str) or not re.fullmatch(pattern, name) or len(name) > 120 or keyword.iskeyword(name):
        raise DeclarationError(
            f"{name!r} is not a usable name",
            where=where,
            field=field,
            mend="use letters, digits and underscores, but no keyword of Python" + (", parts joined by dots" if dots else ""),
        )
