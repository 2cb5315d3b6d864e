"""Columns: fields and conditions, against Python's own reading of the same text."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.expressions import parse_column

TYPES: dict[str, type] = {"a": float, "b": int, "c": bool, "s": str}
_numbers = st.sampled_from(["a", "b", "c", "0", "1", "2.5", "15", "True"])
_texts = st.sampled_from(["s", "'JFK'", '"it\'s"', "''"])


def _condition(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(parts, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "and", "or", "+", "-", "*"]), parts).map(
            lambda part: f"({part[0]} {part[1]} {part[2]})"
        ),
        st.tuples(_texts, st.sampled_from(["==", "!=", "<", ">="]), _texts).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        parts.map(lambda part: f"(not {part})"),
        parts.map(lambda part: f"(-{part})"),
    )


CONDITIONS = st.recursive(_numbers, _condition, max_leaves=8)
ROWS = st.fixed_dictionaries({
    "a": st.none() | st.floats(-100, 100), "b": st.none() | st.integers(-(2**63), 2**63 - 1),
    "c": st.none() | st.booleans(), "s": st.none() | st.sampled_from(["JFK", "it's", ""]),
})  # fmt: skip


def value_of(source: str, row: dict[str, Any]) -> Any:
    """What the compiled source gives for one event."""
    return eval(source, {"v": SimpleNamespace(**row), "float": float})  # noqa: S307 - what the kernel does


@given(CONDITIONS, ROWS)
def test_a_condition_means_what_python_means(text: str, row: dict[str, Any]) -> None:
    """Over rows without nulls a condition has Python's value as a float; with a null in any field it names it is null."""
    try:
        column = parse_column(text, TYPES)
    except ValueError as error:
        assert "names no field" in str(error)  # noqa: PT017 - any text is fine but one that is constant
        return
    found = value_of(column.source, row)
    if any(row[field] is None for field in column.fields):
        assert found is None
    elif text in TYPES:
        assert found == row[text]
    else:
        assert isinstance(found, float)
        # Python's whole numbers are exact where a column is a float, so large ones agree within rounding alone.
        expected = float(eval(text, {}, row))  # noqa: S307 - text made above
        if abs(row["b"] or 0) < 2**20:
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("text", ["a > 1 and b > 1", "b > 1 or a > 1", "a == b", "s == 'JFK' or a > 1", "not (c and a > 1)", "a + b"])
def test_one_null_makes_a_condition_null(text: str) -> None:
    """Even where Python would not have looked at the field, so that a condition never depends on the order of its parts."""
    column = parse_column(text, TYPES)
    row: dict[str, Any] = {"a": 2.0, "b": 2, "c": True, "s": "JFK"}
    assert value_of(column.source, row) is not None
    for field in column.fields:
        assert value_of(column.source, row | {field: None}) is None


def test_fields_are_listed_once_in_order_of_appearance() -> None:
    """A column names the fields it reads."""
    assert parse_column("b > 1 and a > b", TYPES).fields == ("b", "a")
    assert parse_column("a", TYPES).source == "v.a"


def test_a_field_may_have_an_odd_name() -> None:
    """A field is taken before its name is read as an expression."""
    assert parse_column("s", {"s": str}).fields == ("s",)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "not an expression"),
        ("a >", "not an expression"),
        ("a = 1", "not an expression"),
        ("a\0", "not an expression"),
        (5, "not an expression"),
        ("z", "no field 'z'; it has a, b, c, s"),
        ("a > z", "no field 'z'"),
        ("1", "names no field"),
        ("'s'", "names no field"),
        ("(s)", "is text"),
        ("a / 2", "'a / 2' may not stand"),
        ("a ** 2", "may not stand"),
        ("a % 2", "may not stand"),
        ("f(a)", "may not stand"),
        ("a.real", "may not stand"),
        ("a[0]", "may not stand"),
        ("[a]", "may not stand"),
        ("(a, b)", "may not stand"),
        ("a if b else c", "may not stand"),
        ("lambda: a", "may not stand"),
        ("(b := a)", "may not stand"),
        ("a < 1 < 2", "may not stand"),
        ("a is None", "may not stand"),
        ("s in 'JFK'", "may not stand"),
        ("a == None", "'None' may not stand"),
        ("s == b'x'", "may not stand"),
        ("a > 1j", "may not stand"),
        ("a > 1e999", "may not stand"),
        ("b > 9223372036854775808", "may not stand"),
        ("~b", "may not stand"),
        ("+a", "may not stand"),
        ("s > 5", "mixes text and numbers"),
        ("a == 'x'", "mixes text and numbers"),
        ("s + s", "calculates with text"),
        ("s * 2", "mixes text"),
        ("-s", "calculates with text"),
        ("not s", "calculates with text"),
        ("s or s", "calculates with text"),
        ("s and a > 1", "mixes text"),
        ("__import__('os')", "may not stand"),
    ],
)
def test_what_may_not_be_written(text: Any, cause: str) -> None:
    """Anything that could raise, run code or make no sense for an event is refused when the project is loaded."""
    with pytest.raises(ValueError, match=r"may|names|text|field|not an") as caught:
        parse_column(text, TYPES)
    assert cause in str(caught.value)


@given(st.integers(2**62, 2**63 - 1), st.integers(5, 60))
def test_large_whole_numbers_never_overflow(value: int, power: int) -> None:
    """However many whole numbers are multiplied, the result is a float, if need be an infinite one."""
    column = parse_column(" * ".join(["b"] * power) + " > 0", TYPES)
    assert value_of(column.source, {"b": value}) == 1.0
    product = value_of(parse_column(" * ".join(["b"] * power), TYPES).source, {"b": value})
    assert product == math.inf or product > 0
