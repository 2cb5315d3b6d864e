"""Conditions in SQL beside Python's own evaluation of the same text."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.expressions import parse_column
from tidemill.verify.expressions import SqlPart, column_sql

TYPES = {"i": int, "f": float, "b": bool, "s": str, "j": int}
FIELDS = {name: SqlPart(name, kind) for name, kind in TYPES.items()}
ARROW = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "s": pa.string(), "j": pa.int64()}
VALUES: dict[str, Any] = {
    "i": st.integers(-3, 3) | st.sampled_from((2**53 + 1, -(2**63), 2**63 - 1)),
    "j": st.integers(-3, 3) | st.just(2**53),
    "f": st.floats(-4, 4) | st.sampled_from((2.0**53, -0.0, 9.2e18)),
    "b": st.booleans(),
    "s": st.sampled_from(("", "a", "A", "ä", "it's", "𝄞")),
}
_numbers = st.sampled_from(("i", "f", "b", "j", "1", "0", "2.5", "-3", "9007199254740993"))
_texts = st.sampled_from(("s", "'a'", "'it\\'s'", "''"))
_signs = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, st.sampled_from(("and", "or", "+", "-", "*", "<", "==", ">=")), inner).map(lambda parts: f"({' '.join(parts)})")
    return two | inner.map(lambda part: f"(not {part})") | inner.map(lambda part: f"(-({part}))")


conditions = st.recursive(_numbers | st.tuples(_texts, _signs, _texts).map(lambda parts: f"({' '.join(parts)})"), _joined, max_leaves=6)


def in_sql(text: str, values: dict[str, Any]) -> Any:
    """A condition's value by DuckDB."""
    row = pa.table({name: pa.array([values[name]], ARROW[name]) for name in TYPES})
    db = duckdb.connect(config={"threads": 1})
    try:
        db.register("row_of_it", row)
        (found,) = db.execute(f"SELECT {column_sql(text, FIELDS)} FROM row_of_it").fetchone() or (None,)  # noqa: S608
        return found
    finally:
        db.close()


@given(conditions, st.fixed_dictionaries(VALUES))
def test_a_condition_means_what_python_says(text: str, values: dict[str, Any]) -> None:
    """Comparisons, `and`, `or`, `not` and arithmetic, of whole numbers, floats, truth values and texts."""
    try:
        parse_column(text, TYPES)
    except ValueError:
        return
    by_python = float(eval(text, {}, {name: float(value) if name == "f" else value for name, value in values.items()}))  # noqa: S307 - made by the strategy above
    found = in_sql(text, values)
    assert found == pytest.approx(by_python, rel=1e-12)


@pytest.mark.parametrize(("text", "lacks", "found"), [("i > 0 or f > 0", "f", None), ("s == 'a'", "s", None), ("i > 0", "f", 1.0)])
def test_a_condition_is_null_when_one_of_its_fields_is(text: str, lacks: str, found: float | None) -> None:
    """Whatever the others say; a field that it does not name has no part in it."""
    assert in_sql(text, {"i": 1, "j": 1, "f": 1.0, "b": True, "s": "a"} | {lacks: None}) == found
