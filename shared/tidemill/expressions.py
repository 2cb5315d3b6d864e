"""Columns a view folds: a field of the event ("dep_delay") or a condition on its fields ("dep_delay > 15 and not diverted").

A condition is parsed once, when the project is loaded, into Python source over the event's values. It is null when any field
it names is null, so that a missing delay counts neither as late nor as on time.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass

_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult)


@dataclass(frozen=True)
class Column:
    """One input of a fold: `text` as written, the `fields` it reads, and `source`, Python over `v.<field>` giving a float or None."""

    text: str
    fields: tuple[str, ...]
    source: str


def parse_column(text: str, known: Collection[str]) -> Column:
    """Parses a field name or a condition. Raises ValueError that says what is wrong and what may be written."""
    if text in known:
        return Column(text, (text,), f"v.{text}")
    try:
        body = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is not an expression: {error.msg}") from None
    if isinstance(body, ast.Name):
        raise ValueError(f"the event has no field {text!r}; it has {', '.join(sorted(known))}")
    fields: dict[str, None] = {}
    code = _render(body, known, fields)
    if not fields:
        raise ValueError(f"{text!r} names no field of the event")
    nulls = " or ".join(f"v.{field} is None" for field in fields)
    return Column(text, tuple(fields), f"(None if {nulls} else float({code}))")


def _render(node: ast.expr, known: Collection[str], fields: dict[str, None]) -> str:
    match node:
        case ast.Name(id=name):
            if name not in known:
                raise ValueError(f"the event has no field {name!r}; it has {', '.join(sorted(known))}")
            fields[name] = None
            return f"v.{name}"
        case ast.Constant(value=value) if isinstance(value, str | int | float | bool):
            return repr(value)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if isinstance(op, _COMPARISONS):
            return f"({_render(left, known, fields)} {_SIGNS[type(op)]} {_render(right, known, fields)})"
        case ast.BoolOp(op=op, values=values):
            word = " and " if isinstance(op, ast.And) else " or "
            return "(" + word.join(_render(value, known, fields) for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"(not {_render(operand, known, fields)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{_render(operand, known, fields)})"
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
            return f"({_render(left, known, fields)} {_SIGNS[type(op)]} {_render(right, known, fields)})"
    raise ValueError(f"{ast.unparse(node)!r} may not stand in a condition; use fields, numbers, strings, + - *, comparisons, and, or, not")


_SIGNS: dict[type[ast.AST], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Add: "+", ast.Sub: "-", ast.Mult: "*",
}  # fmt: skip
