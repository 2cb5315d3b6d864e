"""The columns that a view folds: a field of the event ("price") or a condition on its fields ("price > 15 and not refunded").

A condition is parsed once, when the project is loaded, into Python source over the event's values. It is null when any of its fields is
null, so a missing price counts neither as high nor as low.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One input of a fold. `text`: as declared; `fields`: those it reads; `source`: Python over `v.<field>` that gives a float or None;
    `truth`: it can only be true, false or null."""

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
        body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(f"{text!r} is not an expression: {getattr(error, 'msg', error)}") from None
    fields: dict[str, None] = {}
    code, is_text = _render(body, types, fields)
    if not fields:
        raise ValueError(f"{text!r} names no field of the event")
    if is_text:
        raise ValueError(f"{text!r} is text; compare it with something")
    nulls = " or ".join(f"v.{field} is None" for field in fields)
    return Column(text, tuple(fields), f"(None if {nulls} else float({code}))", _is_truth(body, types))


def _is_truth(node: ast.expr, types: Mapping[str, type]) -> bool:
    """Whether a part is true or false: `a and b` is one of the two, so it may be a number."""
    match node:
        case ast.Name(id=name):
            return types[name] is bool
        case ast.BoolOp(values=values):
            return all(_is_truth(value, types) for value in values)
        case ast.Constant(value=value):
            return isinstance(value, bool)
    return isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def number_of(column: Column) -> Callable[[Any], float | None]:
    """A function that computes a column from an object with one attribute per field of the event: a number, infinite when it is beyond a
    double, or None. Only for a column that is no text."""
    compute: Callable[[Any], Any] = eval(f"lambda v: {column.source}", {"float": float})  # noqa: S307 - made by parse_column, nothing else

    def number(values: Any) -> float | None:
        try:
            found = compute(values)
            return None if found is None else float(found)
        except OverflowError:
            return math.inf

    return number


def _render(node: ast.expr, types: Mapping[str, type], fields: dict[str, None]) -> tuple[str, bool]:
    """Python source of a part, and whether it is text."""

    def parts(*nodes: ast.expr, texts: bool = False) -> list[str]:
        rendered = [_render(part, types, fields) for part in nodes]
        if len({is_text for _, is_text in rendered}) > 1 or (rendered[0][1] and not texts):
            raise ValueError(f"{ast.unparse(node)!r} mixes text and numbers, or calculates with text")
        return [code for code, _ in rendered]

    match node:
        case ast.Name(id=name):
            if name not in types:
                raise ValueError(f"the event has no field {name!r}; it has {', '.join(sorted(types))}")
            fields[name] = None
            return f"v.{name}", types[name] is str
        case ast.Constant(value=value) if isinstance(value, str) or (isinstance(value, int | float) and abs(value) < _LARGEST):
            return repr(value), isinstance(value, str)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            return f"({f' {_COMPARISONS[type(op)]} '.join(parts(left, right, texts=True))})", False
        case ast.BoolOp(op=op, values=values):
            return f"({(' and ' if isinstance(op, ast.And) else ' or ').join(parts(*values))})", False
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _SIGNS:
            return f"({_SIGNS[type(op)]}{parts(operand)[0]})", False
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            # The first operand becomes a float, since whole numbers of Python grow without bound.
            return f"(float({f') {_ARITHMETIC[type(op)]} ('.join(parts(left, right))}))", False
    raise ValueError(f"{ast.unparse(node)!r} may not stand in a condition; use fields, numbers, strings, + - *, comparisons, and, or, not")


_LARGEST = 2.0**63
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_SIGNS: dict[type[ast.AST], str] = {ast.Not: "not ", ast.USub: "-"}
_ARITHMETIC: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
