"""Code that all declarations share: their file and line, and checks of their arguments."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError

FIELD_TYPES = (str, int, float, bool)


def where_declared() -> str:
    """File and line of the declaration: the first frame outside this package."""
    frame = sys._getframe(1)
    home = str(Path(__file__).parents[1]) + os.sep
    while frame.f_back and (frame.f_code.co_filename.startswith((home, "<"))):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Declaration:
    """Root of the declarations. `where`: file and line of the declaration, taken from the call stack.

    An unknown argument, a missing one, or one without its name where the name is needed raises DeclarationError like any other mistake.
    """

    where: str
    refused: ClassVar[str] = ""
    """What to write in place of arguments that a person may expect here but that do not exist; it is added to the mend."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes the declaration and sets `where`. Raises DeclarationError unless the arguments fit."""
        where, takes = where_declared(), inspect.signature(cls.__init__)
        try:
            takes.bind(None, *args, **kwargs)
        except TypeError as error:
            known = list(takes.parameters)[1:]
            unknown = next((name for name in kwargs if name not in known), None)
            mend = f"its arguments are {', '.join(known)}" + (f"; {cls.refused}" if cls.refused else "")
            raise DeclarationError(f"{cls.__name__}: {error}", where=where, field=unknown, mend=mend) from None
        made = super().__new__(cls)
        object.__setattr__(made, "where", where)
        return made


def base_type(kind: Any) -> Any:
    """A declared type without `| None`."""
    if get_origin(kind) in (Union, UnionType):
        rest = [part for part in get_args(kind) if part is not NoneType]
        return rest[0] if len(rest) == 1 else kind
    return kind


def check_partitions(owner: Any) -> None:
    """Raises DeclarationError unless the owner has at least one partition."""
    if owner.partitions < 1:
        raise DeclarationError(
            f"{type(owner).__name__} {owner.name!r}: {owner.partitions} partitions",
            where=owner.where,
            field="partitions",
            mend="give at least 1",
        )


def duration_ms(owner: Any, name: str, text: str) -> int:
    """Milliseconds of the duration in the argument `name`. Raises DeclarationError."""
    try:
        return parse_ms(text)
    except ValueError as error:
        raise DeclarationError(
            f"{type(owner).__name__} {owner.name!r}: {error}", where=owner.where, field=name, mend='write for example "5m", "24h" or "7d"'
        ) from None
