"""Code that all declarations share: their file and line, and checks of their arguments."""

from __future__ import annotations

import inspect
import linecache
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, Union, get_args, get_origin

from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError

FIELD_TYPES = (str, int, float, bool)
_HOME = str(Path(__file__).parents[1]) + os.sep
_signature = cache(inspect.signature)  # a project is read again and again while a catalogue changes; these classes do not


def where_declared() -> str:
    """File and line of the declaration: the first frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_code.co_filename.startswith((_HOME, "<"))):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def did_you_mean(name: str, names: Iterable[str], form: str = "{}") -> str:
    """`did you mean count?`, by the names that there are; nothing when none is near."""
    near = get_close_matches(name, names, 1)
    return f"did you mean {form.format(near[0])}?" if near else ""


def source_line(where: str) -> str:
    """The line of `file:line`."""
    path, _, line = where.rpartition(":")
    return linecache.getline(path, int(line)).strip()


Made = tuple[str, Any]
"""The name of the module that was executed when a declaration was made, and the declaration."""

_made: ContextVar[list[Made] | None] = ContextVar("made", default=None)


@contextmanager
def noted() -> Iterator[list[Made]]:
    """Notes the declarations that are made, in order."""
    made: list[Made] = []
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)


class _Noting(type):
    """Makes declarations and notes them, once they are whole."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """A declaration. Raises DeclarationError."""
        declaration, made = super().__call__(*args, **kwargs), _made.get()
        if made is not None:
            frame = sys._getframe(1)
            while frame.f_back and frame.f_code.co_name != "<module>":
                frame = frame.f_back
            made.append((frame.f_globals["__name__"], declaration))
        return declaration


class Declaration(metaclass=_Noting):
    """Root of the declarations. `declared_at`: file and line of the declaration, taken from the call stack.

    An unknown argument, a missing one, or one without its name where the name is needed raises DeclarationError like any other mistake.
    """

    declared_at: str
    refused: ClassVar[str] = ""
    """What to write in place of arguments that a person may expect here but that do not exist; it is added to the mend."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes the declaration and sets `declared_at`. Raises DeclarationError unless the arguments fit."""
        where, takes = where_declared(), _signature(cls.__init__)
        try:
            given = takes.bind(None, *args, **kwargs).arguments
        except TypeError as error:
            known = list(takes.parameters)[1:]
            unknown = next((name for name in kwargs if name not in known), None)
            meant = did_you_mean(unknown or "", known, "{}=")
            mend = f"{meant} its arguments are {', '.join(known)}".strip() + (f"; {cls.refused}" if cls.refused else "")
            line = source_line(where)
            message = f"{cls.__name__}: {error}" + (f", in: {line}" if line else "")
            raise DeclarationError(message, where=where, field=unknown, mend=mend) from None
        for name, value in given.items():
            if name != "name":  # there is a rule for names
                check_plain(cls.__name__, name, takes.parameters[name].annotation, value, where)
        made = super().__new__(cls)
        object.__setattr__(made, "declared_at", where)
        return made


def check_plain(what: str, name: str, annotation: object, value: object, where: str) -> None:
    """Raises DeclarationError unless an argument that is annotated as plain data is such data, and can be written down as it is.

    `annotation`: its text; one that is no plain data passes. `what`: whose argument it is.
    """
    text = str(annotation)
    fits, wanted = _PLAIN.get(text.removesuffix(" | None"), (None, ""))
    if fits is not None and not fits(value) and not (value is None and text.endswith(" | None")):
        raise DeclarationError(f"{what}: {name} is {value!r}", where=where, field=name, mend=f"give {wanted}")


def _is_text(value: object) -> bool:
    """Whether it is text that UTF-8 can hold."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


_PLAIN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (_is_text, "text"),
    "int": (lambda value: type(value) is int, "a whole number"),
    "float": (_is_number, "a number"),
    "float | str": (lambda value: _is_number(value) or _is_text(value), "a number, or the text of a class"),
    "Sequence[str]": (lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)), 'a list of texts, such as ["1h", "7d"]'),
    "Sequence[str | int]": (
        lambda value: isinstance(value, list | tuple) and all(_is_text(one) or type(one) is int for one in value),
        'a list of texts or of whole numbers, such as ["late", "on time"]',
    ),
    "Mapping[str, str]": (
        lambda value: isinstance(value, Mapping) and all(map(_is_text, (*value, *value.values()))), 'a dict of texts, such as {"7d": "6h"}'
    ),
}  # fmt: skip


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
            where=owner.declared_at,
            field="partitions",
            mend="give at least 1",
        )


def duration_ms(owner: Any, name: str, text: str) -> int:
    """Milliseconds of the duration in the argument `name`. Raises DeclarationError."""
    try:
        return parse_ms(text)
    except ValueError as error:
        raise DeclarationError(
            f"{type(owner).__name__} {owner.name!r}: {error}",
            where=owner.declared_at,
            field=name,
            mend='write for example "5m", "24h" or "7d"',
        ) from None
