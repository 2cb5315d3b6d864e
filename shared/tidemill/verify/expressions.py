"""Conditions of a project as SQL. `price > 15 and not refunded` is written in Python's words, and means what it means there."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

from tidemill.limits import EXACT
from tidemill.timestamps import LAST_MS

_COMPARED = {ast.Eq: "=", ast.NotEq: "<>", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_CALCULATED = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_TIME_PARTS = {"hour": "hour({})", "minute": "minute({})", "day": "day({})", "month": "month({})", "weekday": "(isodow({}) - 1)"}
_RFC3339 = r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"


class SqlPart(NamedTuple):
    """A part of a condition, or a field. `kind`: str, int (a truth value is 1 or 0), float, or bool for a field."""

    sql: str
    kind: type


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as SQL."""
    return "'" + value.replace("'", "''") + "'"


def names_in(column: str, fields: Collection[str]) -> list[str]:
    """The fields that a field or a condition reads."""
    if column in fields:
        return [column]
    nodes = list(ast.walk(ast.parse(column, mode="eval")))
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and node not in called))


def column_sql(column: str, fields: Mapping[str, SqlPart]) -> str:
    """A field or a condition as SQL. A condition is null when one of its fields is null, or when a part of it has no value.

    A condition is a DOUBLE; a field keeps its type, except that a truth value is 1 or 0. `fields`: the SQL of each field.
    """
    if column in fields:
        return _field(column, fields).sql
    tree = ast.parse(column, mode="eval").body
    lacks = [f"{fields[name].sql} IS NULL" for name in names_in(column, fields)]
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            lacks.append(f"coalesce(isnan({_part(node, fields).sql}), true)")
        elif isinstance(node, ast.Call):
            lacks.append(f"{_part(node, fields).sql} IS NULL")
    return f"CASE WHEN {' OR '.join(lacks)} THEN NULL ELSE CAST({_part(tree, fields).sql} AS DOUBLE) END"


def moment_sql(field: SqlPart, earliest_ms: int = 0) -> str:
    """A time in epoch ms, cut to ms; null where it is no RFC 3339 with a zone, or lies before `earliest_ms` or after the year 9999."""
    sql = field.sql
    if field.kind is str:
        us = f"epoch_us(TRY_CAST({sql} AS TIMESTAMPTZ))"
        sql = f"CASE WHEN regexp_full_match({sql}, {text(_RFC3339)}) THEN ({us} - ({us} % 1000 + 1000) % 1000) // 1000 END"
    return f"CASE WHEN {sql} BETWEEN {earliest_ms} AND {LAST_MS} THEN {sql} END"


def _field(name: str, fields: Mapping[str, SqlPart]) -> SqlPart:
    sql, kind = fields[name]
    return SqlPart(f"CAST({sql} AS BIGINT)", int) if kind is bool else SqlPart(sql, kind)


def _part(node: ast.expr, fields: Mapping[str, SqlPart]) -> SqlPart:
    match node:
        case ast.Name(id=name):
            return _field(name, fields)
        case ast.Constant(value=str(value)):
            return SqlPart(text(value), str)
        case ast.Constant(value=float(value)):
            return SqlPart(f"CAST('{value!r}' AS DOUBLE)", float)
        case ast.Constant(value=int(value)):
            return SqlPart(f"CAST({int(value)} AS BIGINT)", int)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            return SqlPart(f"CAST({_comparison(left, ops, rights, fields)} AS BIGINT)", int)
        case ast.BoolOp(op=op, values=values):
            return reduce(lambda last, first: _chosen(first, isinstance(op, ast.And), last), [_part(v, fields) for v in reversed(values)])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return SqlPart(f"CAST(({_part(operand, fields).sql}) = 0 AS BIGINT)", int)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            part = _wide(_part(operand, fields))
            return SqlPart(f"(-{part.sql})", part.kind)
        case ast.BinOp(left=left, op=op, right=right):
            operands = [f"CAST({_part(side, fields).sql} AS DOUBLE)" for side in (left, right)]
            if isinstance(op, ast.Div):
                operands[1] = f"nullif({operands[1]}, 0)"
            return SqlPart(f"({operands[0]} {_CALCULATED[type(op)]} {operands[1]})", float)
        case ast.Call(func=ast.Name(id="abs"), args=[operand]):
            part = _wide(_part(operand, fields))
            return SqlPart(f"abs({part.sql})", part.kind)
        case ast.Call(func=ast.Name(id=name), args=[ast.Name(id=of)]) if name in _TIME_PARTS:
            return SqlPart(_TIME_PARTS[name].format(f"make_timestamp_ms({moment_sql(fields[of])})"), int)
    raise ValueError(f"{ast.unparse(node)!r} has no meaning in a condition")


def _comparison(left: ast.expr, ops: Sequence[ast.cmpop], rights: Sequence[ast.expr], fields: Mapping[str, SqlPart]) -> str:
    """`a < b`, `a < b <= c`, or `a in [b, c]`."""
    parts = [_part(left, fields)]
    match ops, rights:
        case [ast.In() | ast.NotIn() as op], [ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items)]:
            among = " OR ".join(f"({_compared(parts[0], '=', _part(item, fields))})" for item in items)
            return f"NOT ({among})" if isinstance(op, ast.NotIn) else f"({among})"
    parts += [_part(right, fields) for right in rights]
    pairs = zip(parts, ops, parts[1:], strict=False)
    return f"({' AND '.join(f'({_compared(first, _COMPARED[type(op)], second)})' for first, op, second in pairs)})"


def _wide(part: SqlPart) -> SqlPart:
    """A number whose sign may be changed: that of the smallest BIGINT is none."""
    return SqlPart(f"CAST({part.sql} AS {'DOUBLE' if part.kind is float else 'HUGEINT'})", part.kind)


def _chosen(first: SqlPart, both: bool, last: SqlPart) -> SqlPart:
    """`first and last`, or `first or last`: one of the two, as in Python."""
    kind = float if float in (first.kind, last.kind) else int
    sides = [f"CAST({part.sql} AS {'DOUBLE' if kind is float else 'HUGEINT'})" for part in (first, last)]
    return SqlPart(f"(CASE WHEN ({first.sql}) {'=' if both else '<>'} 0 THEN {sides[0]} ELSE {sides[1]} END)", kind)


def _compared(left: SqlPart, sign: str, right: SqlPart) -> str:
    """A comparison. A whole number and a double are compared exactly, as Python does it, and not after rounding."""
    if left.kind is right.kind:
        return f"({left.sql}) {sign} ({right.sql})"
    rounded = [f"CAST({part.sql} AS DOUBLE)" for part in (left, right)]
    alike = f"{rounded[0]} = {rounded[1]} AND abs({rounded[0]}) >= {EXACT}"
    exact = f"TRY_CAST({left.sql} AS HUGEINT) {sign} TRY_CAST({right.sql} AS HUGEINT)"
    return f"CASE WHEN {alike} THEN {exact} ELSE {rounded[0]} {sign} {rounded[1]} END"
