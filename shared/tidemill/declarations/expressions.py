"""The columns that a view folds: a field of the event ("price") or a condition on its fields ("price > 15 and not refunded").

A condition is parsed once, when the project is loaded, into Python source over the event's values. It is null when any of its fields is
null, so a missing price counts neither as high nor as low. It is null too when any part of it has no value: something divided by zero, the
hour of a text that is no time, infinity minus infinity. Both hold wherever that part stands, so `and` and `or` never hide it. A number
beyond a double is infinite, which can be compared.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tidemill.declarations.checks import did_you_mean
from tidemill.timestamps import parse_time_ms


@dataclass(frozen=True)
class Column:
    """One input of a fold. `text`: as declared; `fields`: those it reads; `source`: Python over `v.<field>` and `SCOPE` that gives a float or
    None; `truth`: it can only be true, false or null."""

    text: str
    fields: tuple[str, ...]
    source: str
    truth: bool = False


def parse_column(text: str, types: Mapping[str, type]) -> Column:
    """Parses a field name or a condition. `types`: the event's fields with str, int, float or bool.

    Raises ValueError, which says what is wrong and what is allowed.
    """
    if text in types:
        return Column(text, (text,), f"v.{text}", types[text] is bool)
    try:
        return _parsed(text, types)
    except (RecursionError, MemoryError):
        raise ValueError(f"{text[:40]}... is not an expression: it is nested too deeply") from None


def _parsed(text: str, types: Mapping[str, type]) -> Column:
    try:
        body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    writer = _Writer(types)
    part = writer.part(body)
    if not writer.fields:
        raise ValueError(f"{text!r} names no field of the event")
    if part.is_text:
        raise ValueError(f"{text!r} is text; compare it with something")
    nulls = " or ".join([*(f"v.{name} is None" for name in writer.fields), *writer.lacks])
    source = f"(None if {nulls} else float({part.code}))"
    try:
        compile(source, "", "eval")
    except SyntaxError:  # Python takes some two hundred parentheses
        raise RecursionError from None
    return Column(text, tuple(writer.fields), source, part.is_truth)


def number_of(column: Column) -> Callable[[Any], float | None]:
    """A function that computes a column from an object with one attribute per field of the event: a number, infinite when it is beyond a
    double, or None. Only for a column that is no text."""
    compute: Callable[[Any], Any] = eval(f"lambda v: {column.source}", dict(SCOPE))  # noqa: S307 - made by parse_column, nothing else

    def number(values: Any) -> float | None:
        try:
            found = compute(values)
            return None if found is None else float(found)
        except OverflowError:
            return math.inf

    return number


def _utc(value: int | str) -> datetime | None:
    """A moment in UTC; None for what is none."""
    try:
        return _EPOCH + timedelta(milliseconds=parse_time_ms(value, 0))
    except ValueError:
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCOPE: Mapping[str, Any] = {"float": float, "abs": abs, "utc": _utc}
"""What the source of a column calls."""

TIME_PARTS = {"hour": "hour", "minute": "minute", "day": "day", "month": "month", "weekday": "weekday()"}
"""Functions of a time -> the attribute of a datetime. Monday is weekday 0, as in Python."""

_LARGEST = 2.0**63
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_AMONG: dict[type[ast.AST], str] = {ast.In: "in", ast.NotIn: "not in"}
_ARITHMETIC: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ALLOWED = (
    'use fields, numbers, strings, + - * /, comparisons, in ["a", "b"], and, or, not, abs(x), and '
    f"{', '.join(f'{name}(at)' for name in TIME_PARTS)} of a time"
)


class _Term(NamedTuple):
    """Python source of a part. `is_truth`: it can only be true or false; `may_be_infinite`: it is calculated."""

    code: str
    is_text: bool = False
    is_truth: bool = False
    may_be_infinite: bool = False


@dataclass
class _Writer:
    """Writes the source of a condition, part by part. `fields`: those it reads, in order; `lacks`: source of what is true when a part has no
    value, in an order in which each can be computed once those before it are false."""

    types: Mapping[str, type]
    fields: dict[str, None] = field(default_factory=dict)
    lacks: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)

    def part(self, node: ast.expr) -> _Term:
        """A part. Raises ValueError when it may not stand in a condition."""
        match node:
            case ast.Name(id=name):
                return self._field(name)
            case ast.Constant(value=str(text)) if _is_utf8(text):
                return _Term(repr(text), is_text=True)
            case ast.Constant(value=value) if isinstance(value, int | float) and abs(value) < _LARGEST:
                return _Term(repr(value), is_truth=isinstance(value, bool))
            case ast.Compare(left=left, ops=[op], comparators=[ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items)]) if (
                type(op) in _AMONG
            ):
                found, *constants = self._alike(node, left, *map(_constant, items), texts=True)
                if not constants:
                    raise ValueError(f"{ast.unparse(node)!r} is about an empty list; name what may be in it")
                return _Term(f"({found.code} {_AMONG[type(op)]} {{{', '.join(part.code for part in constants)}}})", is_truth=True)
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _COMPARISONS for op in ops):
                first, *rest = self._alike(node, left, *rights, texts=True)
                compared = "".join(f" {_COMPARISONS[type(op)]} {part.code}" for op, part in zip(ops, rest, strict=True))
                return _Term(f"({first.code}{compared})", is_truth=True)
            case ast.BoolOp(op=op, values=values):  # one of the values, so it may be a number
                parts = self._alike(node, *values)
                code = f"({(' and ' if isinstance(op, ast.And) else ' or ').join(part.code for part in parts)})"
                return _Term(code, False, all(part.is_truth for part in parts), any(part.may_be_infinite for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Term(f"(not {self._alike(node, operand)[0].code})", is_truth=True)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                (part,) = self._alike(node, operand)
                return _Term(f"(-{part.code})", may_be_infinite=part.may_be_infinite)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._calculated(op, *self._alike(node, left, right))
            case ast.Call(func=ast.Name(id="abs"), args=[operand], keywords=[]):
                (part,) = self._alike(node, operand)
                return _Term(f"abs({part.code})", may_be_infinite=part.may_be_infinite)
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=of)], keywords=[]) if name in TIME_PARTS:
                return self._time_part(name, of)
        raise ValueError(f"{ast.unparse(node)!r} may not stand in a condition; {_instead(node)}")

    def _field(self, name: str) -> _Term:
        if name not in self.types:
            meant = did_you_mean(name, self.types)
            raise ValueError(f"the event has no field {name!r}; it has {', '.join(sorted(self.types))}" + (f"; {meant}" if meant else ""))
        self.fields[name] = None
        return _Term(f"v.{name}", self.types[name] is str, self.types[name] is bool)

    def _alike(self, node: ast.expr, *nodes: ast.expr, texts: bool = False) -> list[_Term]:
        """Parts that are all numbers, or, where there may be texts, all texts."""
        parts = [self.part(part) for part in nodes]
        if len({part.is_text for part in parts}) > 1 or (parts[0].is_text and not texts):
            raise ValueError(f"{ast.unparse(node)!r} mixes text and numbers, or calculates with text")
        return parts

    def _calculated(self, op: ast.operator, left: _Term, right: _Term) -> _Term:
        sign, infinite = _ARITHMETIC[type(op)], (left.may_be_infinite, right.may_be_infinite)
        if sign == "/":
            right = right._replace(code=self._once(right.code, "{0} == 0"))
        # The first operand becomes a float, since whole numbers of Python grow without bound.
        code = f"(float({left.code}) {sign} ({right.code}))"
        if any(infinite) if sign == "*" else all(infinite):
            code = self._once(code, "{0} != {1}")
        return _Term(code, may_be_infinite=True)

    def _time_part(self, name: str, of: str) -> _Term:
        found = self._field(of)
        if self.types[of] not in (int, str):
            raise ValueError(f"{name}({of}): {of!r} is {self.types[of].__name__}; a time is int (epoch ms) or str (RFC 3339)")
        return _Term(f"{self._once(f'utc({found.code})', '{0} is None')}.{TIME_PARTS[name]}")

    def _once(self, code: str, lacks: str) -> str:
        """A name for a part that is computed once, before all that uses it. `lacks`: when it has no value, over the part and its name."""
        if code not in self._names:
            name = self._names[code] = f"_{len(self._names)}"
            self.lacks.append(lacks.format(f"({name} := {code})", name))
        return self._names[code]


def _constant(node: ast.expr) -> ast.expr:
    """A part of a list."""
    value = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    if not isinstance(value, ast.Constant):
        raise ValueError(f"{ast.unparse(node)!r} may not stand in a list; use numbers or strings")
    return node


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _instead(node: ast.expr) -> str:
    """What to write in place of a part that is refused."""
    match node:
        case ast.Compare(ops=ops) if any(isinstance(op, ast.Is | ast.IsNot) for op in ops):
            return "a condition is null when one of its fields is null, and a null counts neither as true nor as false"
        case ast.Compare(ops=ops) if any(isinstance(op, ast.In | ast.NotIn) for op in ops):
            return 'write a list of numbers or strings after in: kind in ["a", "b"]'
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
            return "write and, or, not"
        case ast.Call(func=ast.Name(id=name)) if name in TIME_PARTS:
            return f"{name}() takes one field of the event"
        case ast.Call(func=ast.Name(id=name)):
            known = [other for other in ("abs", *TIME_PARTS) if other != name]
            return f"{did_you_mean(name, known, '{}()')} {_ALLOWED}".strip()
    return _ALLOWED
