"""The rule for names, which become topics, Redis keys, table folders and columns."""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple, NewType

from tidemill.errors import DeclarationError

LogName = NewType("LogName", str)
"""One version of a view: `<view>.p<partitions>` for the first, `<view>.v2.p<partitions>` for the second, and so on. It is the name in topic,
keys, table and stamps. Another definition or another count is another version, and another log."""

_LOG = re.compile(r"(?P<view>.+?)(\.v(?P<version>[2-9]|[1-9][0-9]{1,8}))?\.p(?P<partitions>[1-9][0-9]{0,8})", re.ASCII)
_VERSION = re.compile(r"(?P<view>[^@]+)@v(?P<version>[1-9][0-9]{0,8})", re.ASCII)


class LogParts(NamedTuple):
    """What the name of a log says."""

    view: str
    partitions: int
    version: int = 1


def log_name(view: str, partitions: int, version: int = 1) -> LogName:
    """The name of a view's log."""
    return LogName(f"{view}.p{partitions}" if version == 1 else f"{view}.v{version}.p{partitions}")


def parse_log(log: str) -> LogParts | None:
    """The parts of the name of a log; None for any other text."""
    found = _LOG.fullmatch(log)
    return LogParts(found["view"], int(found["partitions"]), int(found["version"] or 1)) if found else None


def version_name(view: str, version: int) -> str:
    """The name of one version of a view, whichever is in force: `cards@v2`."""
    return f"{view}@v{version}"


def parse_version(name: str) -> tuple[str, int] | None:
    """The view and the version in such a name; None for any other text, so for a plain name too."""
    found = _VERSION.fullmatch(name)
    return (found["view"], int(found["version"])) if found else None


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
