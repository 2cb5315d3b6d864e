"""The fold of many tiles at once: the lines of the kinds of slots, compiled for arrays in place of numbers.

A line says what one event does to one tile (declarations/slots.py). Here `s[i]`, `t` and `x` are arrays with one element for each tile, and an
assignment that stands below a condition, or below a column that may be null, changes the tiles alone for which it holds. Each operation is the
same one of float64, so the numbers are the same to the bit. A line that does more than compare, calculate and assign cannot be compiled.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.kernel.tiles import Open, TileLayout

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Numbers(NamedTuple):
    """A column for each event. `there`: where it is not null (None: everywhere)."""

    values: Floats
    there: Bools | None

    def take(self, places: npt.NDArray[np.int64]) -> Numbers:
        """Some of them."""
        return Numbers(self.values[places], None if self.there is None else self.there[places])

    def cut(self, stretch: slice) -> Numbers:
        """Those of a stretch."""
        return Numbers(self.values[stretch], None if self.there is None else self.there[stretch])

    def told(self) -> list[float | None]:
        """Each number, None for null."""
        values: list[float | None] = self.values.tolist()
        for place in [] if self.there is None else np.flatnonzero(~self.there).tolist():
            values[place] = None
        return values


FoldArrays = Callable[[list[Floats], Floats, Mapping[str, Numbers]], None]
"""What one event for each of many tiles does to them: `fold(s, times, columns)`."""


def compile_arrays(layout: TileLayout) -> FoldArrays | None:
    """The fold of one event into each of many tiles; None when it can only be done one by one."""
    lines, scope = ["def fold(s, t, columns):"], dict[str, Any](_SCOPE)
    if layout.sides:
        return None
    try:
        for text in layout.texts:
            source = "\n".join(layout.lines(text, Open(layout, 0, layout.width), scope))
            lines.append("    m0 = None" if text is None else f"    x, m0 = columns[{text!r}]")
            lines += [f"    {line}" for line in _statements(ast.parse(source).body, "m0")]
    except _OneByOneError:
        return None
    exec("\n".join(lines), scope)  # noqa: S102 - made of the kinds' lines, nothing else
    return scope["fold"]  # type: ignore[no-any-return]


class _OneByOneError(Exception):
    """A line does more than can be done with arrays."""


def _statements(body: list[ast.stmt], mask: str) -> Iterator[str]:
    """The lines for arrays. `mask`: the name of what says which tiles they change."""
    for statement in body:
        match statement:
            case ast.If(test=test, body=inner, orelse=[]):
                yield f"{mask}_ = both({mask}, {_expression(test)})"
                yield from _statements(inner, f"{mask}_")
            case ast.AugAssign(target=ast.Subscript() as target, op=op, value=value):
                changed = ast.BinOp(ast.parse(ast.unparse(target), mode="eval").body, op, value)
                yield f"{ast.unparse(target)} = chosen({mask}, {_expression(changed)}, {ast.unparse(target)})"
            case ast.Assign(targets=[ast.Subscript() as target, *others], value=value):
                names = " = ".join(map(ast.unparse, (target, *others)))
                yield f"{names} = chosen({mask}, {_expression(value)}, {ast.unparse(target)})"
            case _:
                raise _OneByOneError


_ALLOWED = (
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UnaryOp, ast.USub, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq,
    ast.Name, ast.Subscript, ast.Constant, ast.Load, ast.Store,
)  # fmt: skip


def _expression(node: ast.expr) -> str:
    """An expression that means the same for arrays."""
    for part in ast.walk(node):
        if not isinstance(part, _ALLOWED) or (isinstance(part, ast.Compare) and len(part.ops) > 1):
            raise _OneByOneError
    return ast.unparse(node)


def _both(mask: Bools | None, condition: Bools) -> Bools:
    return condition if mask is None else mask & condition


def _chosen(mask: Bools | None, changed: Floats, before: Floats) -> Floats:
    return changed if mask is None else np.where(mask, changed, before)


_SCOPE = {"both": _both, "chosen": _chosen}
