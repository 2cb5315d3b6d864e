"""Conditions in SQL beside Python's own evaluation of the same text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.expressions import number_of, parse_column
from tidemill.timestamps import LAST_MS
from tidemill.verify.expressions import SqlPart, column_sql, quoted

TYPES = {"i": int, "f": float, "b": bool, "s": str, "j": int, "at": int, "told": str}
FIELDS = {name: SqlPart(quoted(name), kind) for name, kind in TYPES.items()}
ARROW = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "s": pa.string(), "j": pa.int64(), "at": pa.int64(), "told": pa.string()}
VALUES: dict[str, Any] = {
    "i": st.integers(-3, 3) | st.sampled_from((2**53 + 1, -(2**63), 2**63 - 1)),
    "j": st.integers(-3, 3) | st.just(2**53),
    "f": st.floats(-4, 4) | st.sampled_from((2.0**53, -0.0, 9.2e18, 1e308)),
    "b": st.booleans(),
    "s": st.sampled_from(("", "a", "A", "ä", "it's", "𝄞")),
    "at": st.integers(0, LAST_MS) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from((0, -1, LAST_MS, LAST_MS + 1)),
    "told": st.datetimes().map(lambda at: f"{at.isoformat()}Z")
    | st.sampled_from(("", "a", "2024-03-01T00:00:00", "2024-03-01T05:29:59.9+05:30")),
}
_times = st.tuples(st.sampled_from(("hour", "minute", "day", "month", "weekday")), st.sampled_from(("at", "told"))).map(
    lambda parts: f"{parts[0]}({parts[1]})"
)
_numbers = _times | st.sampled_from(("i", "f", "b", "j", "1", "0", "2.5", "-3", "9007199254740993"))
_texts = st.sampled_from(("s", "'a'", "'it\\'s'", "''"))
_signs = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = st.tuples(inner, st.sampled_from(("and", "or", "+", "-", "*", "/", "<", "==", ">=")), inner).map(
        lambda parts: f"({' '.join(parts)})"
    )
    three = st.tuples(inner, _signs, inner, _signs, inner).map(lambda parts: f"({' '.join(parts)})")
    among = st.tuples(inner, st.sampled_from(("in", "not in"))).map(lambda parts: f"({parts[0]} {parts[1]} [0, -1, 2.5, 9007199254740993])")
    one = st.tuples(st.sampled_from(("(not {})", "(-({}))", "abs({})")), inner).map(lambda parts: parts[0].format(parts[1]))
    return two | three | among | one


_listed = st.tuples(_texts, st.sampled_from(("in ['a', 'it\\'s']", "not in ('', 'A')"))).map(lambda parts: f"({' '.join(parts)})")
conditions = st.recursive(
    _numbers | _listed | st.tuples(_texts, _signs, _texts).map(lambda parts: f"({' '.join(parts)})"), _joined, max_leaves=6
)


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


@pytest.mark.slow
@given(conditions, st.fixed_dictionaries(VALUES))
def test_a_condition_means_the_same_in_sql(text: str, values: dict[str, Any]) -> None:
    """All that may be written, of whole numbers, floats, truth values, texts and times; what has no value has none in both."""
    try:
        column = parse_column(text, TYPES)
    except ValueError:
        return
    found, by_python = in_sql(text, values), number_of(column)(SimpleNamespace(**values))
    assert found == (by_python if by_python is None else pytest.approx(by_python, rel=1e-12))


@pytest.mark.parametrize(("text", "lacks", "found"), [("i > 0 or f > 0", "f", None), ("s == 'a'", "s", None), ("i > 0", "f", 1.0)])
def test_a_condition_is_null_when_one_of_its_fields_is(text: str, lacks: str, found: float | None) -> None:
    """Whatever the others say; a field that it does not name has no part in it."""
    assert in_sql(text, {"i": 1, "j": 1, "f": 1.0, "b": True, "s": "a", "at": 0, "told": ""} | {lacks: None}) == found
