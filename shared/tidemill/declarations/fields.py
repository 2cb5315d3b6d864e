"""How an event carries a field, where that is not plainly: under another name, within objects, as text, in another unit, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from types import NoneType
from typing import Any, Final, Literal, get_args

from tidemill.declarations.checks import FIELD_TYPES, Declaration, base_type
from tidemill.timestamps import FIRST_MS, UNITS, check_moment, likely_unit, to_ms

REQUIRED: Final = object()
"""No default."""

TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
"""The texts that mean a truth, in small letters."""

WHOLE = r"[+-]?[0-9]{1,18}(\.0*)?"
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_WORDS = {int: (re.compile(WHOLE), "whole number"), float: (re.compile(NUMBER), "number"), bool: (None, "truth")}
_FAR = float("inf")


@dataclass(frozen=True, eq=False)
class Field(Declaration):
    """A field of an event, as its publisher writes it. In place of a type in `Event(fields={...})`.

    `type`: as in an event. `path`: the field's key in the JSON object, as it stands ("@timestamp"), or the keys that lead to it through nested
    objects (["payload", "user", "id"]); by default the field's name. `default`: the value of an event that does not have the key; a null is
    a value, and needs `| None`. `lenient`: a number or a truth may be written as text. `unit`: of a time that is a whole number since 1970, "d"
    (days), "s", "ms", "us" or "ns"; the value of the field is in ms.
    """

    type: Any
    _: KW_ONLY
    path: str | Sequence[str] | None = None
    default: Any = REQUIRED
    lenient: bool = False
    unit: Literal["d", "s", "ms", "us", "ns"] | None = None

    @property
    def base(self) -> type:
        """Its type without `| None`."""
        kind: type = base_type(self.type)
        return kind

    @property
    def keys(self) -> tuple[str, ...] | None:
        """The keys that lead to it; None: its own name."""
        return (self.path,) if isinstance(self.path, str) else None if self.path is None else (*self.path,)

    @property
    def has_default(self) -> bool:
        """Whether an event may lack it without being null."""
        return self.default is not REQUIRED

    @property
    def converts(self) -> bool:
        """Whether its value may be another one than what the publisher writes."""
        return self.lenient or self.unit not in (None, "ms")

    def value(self, given: Any) -> Any:
        """The value of what a publisher wrote, which is null, of the type or, if lenient, text. Raises ValueError."""
        if self.lenient and isinstance(given, str):
            given = _of_text(given, self.base)
        return given if self.unit is None or given is None else _in_ms(given, self.unit)

    def keeps(self, text: bytes) -> bool:
        """Whether a column of values does not hold all that a publisher's JSON says: a null, which is not the default, or a part of a ms."""
        if text == b"null":
            return self.has_default
        parts, digits = UNITS[self.unit or "ms"][1], text.strip(b'"')
        return parts > 1 and not (digits.isdigit() and int(digits) % parts == 0)

    @property
    def may_keep(self) -> bool:
        """Whether `keeps` may be true."""
        return self.has_default or self.unit in ("us", "ns")


def fields_of(given: Mapping[str, Any], fail: Callable[[str, str, str], None]) -> dict[str, Field]:
    """The fields of an event that are not plain, by name. `fail` raises: (where in the declaration, message, mend)."""
    found = {name: kind for name, kind in given.items() if isinstance(kind, Field)}
    for name, field in found.items():
        for message, mend in _flaws(field):
            fail(f"fields[{name!r}]", message, mend)
    paths: dict[tuple[str, ...], str] = {}
    for name in given:
        keys = (found[name].keys if name in found else None) or (name,)
        for other, owner in paths.items():
            if keys == other[: len(keys)] or other == keys[: len(other)]:
                same = "have one path" if keys == other else "cannot both be there: one path goes through the other"
                fail(
                    f"fields[{name!r}]",
                    f"{'.'.join(other)} of {owner!r} and {'.'.join(keys)} of {name!r} {same}",
                    "give one of them another path",
                )
        paths[keys] = name
    return {name: field for name, field in found.items() if field.keys or field.has_default or field.lenient or field.unit}


def _flaws(field: Field) -> list[tuple[str, str]]:
    """What is wrong with a field, and the mends; its type is looked at elsewhere."""
    flaws, kind = [], field.base
    keys = [field.path] if isinstance(field.path, str) else field.path
    if keys is not None and not (isinstance(keys, list | tuple) and keys and all(map(_is_key, keys))):
        flaws.append(
            (
                f"{field.path!r} is no path",
                'give a key such as "@timestamp", or keys such as ["payload", "id"], without quotes and backslashes',
            )
        )
    if field.unit is not None and (kind is not int or field.unit not in UNITS):
        flaws.append((f"unit={field.unit!r} of {kind.__name__}", 'write "d", "s", "ms", "us" or "ns", of a field that is int'))
    if field.lenient not in (True, False) or (field.lenient and kind is str):
        flaws.append(
            (f"lenient={field.lenient!r} of {kind.__name__}", "write lenient=True of int, float or bool: a text is written as text anyway")
        )
    if field.has_default and kind in FIELD_TYPES and not _fits(field.default, field.type):
        flaws.append((f"{field.default!r} is not {getattr(field.type, '__name__', field.type)}", "give a default of the field's type"))
    return flaws


def _is_key(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(r'[^"\\\x00-\x1f\ud800-\udfff]+', key) is not None


def _fits(value: Any, kind: Any) -> bool:
    if value is None:
        return NoneType in get_args(kind)
    base = base_type(kind)
    if base is float:
        return type(value) in (int, float) and abs(value) < _FAR
    return type(value) is base and (base is not int or -(2**63) <= value < 2**63)


def _of_text(text: str, kind: type) -> Any:
    pattern, word = _WORDS[kind]
    if pattern is None:
        found: Any = TRUTHS.get(text.lower())
    else:
        found = kind(text.split(".", maxsplit=1)[0] if kind is int else text) if pattern.fullmatch(text) else None
    if found is None or (kind is float and abs(found) == _FAR):
        raise ValueError(f"{text!r:.80} is no {word}")
    return found


def _in_ms(given: int, unit: str) -> int:
    try:
        return check_moment(to_ms(given, unit), FIRST_MS)
    except ValueError:
        likely = likely_unit(given, unit)
        meant = f': declare unit="{likely}"' if likely else ""
        raise ValueError(f"{given} {unit} lies outside the years 1 to 9999{meant}") from None
