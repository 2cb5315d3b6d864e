"""Columns: fields and conditions, against Python's own reading of the same text."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.expressions import SCOPE, number_of, parse_column

TYPES: dict[str, type] = {"a": float, "b": int, "c": bool, "s": str, "at": int, "told": str}
_numbers = st.sampled_from(["a", "b", "c", "0", "1", "2.5", "15", "True"])
_texts = st.sampled_from(["s", "'JFK'", '"it\'s"', "''"])


def _condition(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(parts, st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "and", "or", "+", "-", "*"]), parts).map(
            lambda part: f"({part[0]} {part[1]} {part[2]})"
        ),
        st.tuples(_texts, st.sampled_from(["==", "!=", "<", ">="]), _texts).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        st.tuples(parts, parts, parts).map(lambda part: f"({part[0]} < {part[1]} <= {part[2]})"),
        parts.map(lambda part: f"({part} in [0, -1, 2.5])"),
        _texts.map(lambda part: f"({part} not in ('JFK', ''))"),
        parts.map(lambda part: f"abs({part})"),
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
    return eval(source, {"v": SimpleNamespace(**row), **SCOPE})  # noqa: S307 - what the kernel does


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


@pytest.mark.parametrize(
    "text",
    [
        "a > 1 and b > 1",
        "b > 1 or a > 1",
        "a == b",
        "s == 'JFK' or a > 1",
        "not (c and a > 1)",
        "a + b",
        "a / b",
        "hour(at) < abs(b)",
        "0 < a < b",
    ],
)
def test_one_null_makes_a_condition_null(text: str) -> None:
    """Even where Python would not have looked at the field, so that a condition never depends on the order of its parts."""
    column = parse_column(text, TYPES)
    row: dict[str, Any] = {"a": 2.0, "b": 2, "c": True, "s": "JFK", "at": 0}
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
        ("z", "no field 'z'; it has a, at, b, c, s, told"),
        ("tld == 'x'", "did you mean told?"),
        ("a > z", "no field 'z'"),
        ("1", "names no field"),
        ("'s'", "names no field"),
        ("(s)", "is text"),
        ("a ** 2", "may not stand"),
        ("a % 2", "may not stand in a condition; use fields, numbers, strings, + - * /"),
        ("a // 2", "may not stand"),
        ("a if a in [1] else b", "may not stand"),
        ("s in ('JFK')", "write a list of numbers or strings after in"),
        ("a in b", "write a list"),
        ("a in [b]", "'b' may not stand in a list; use numbers or strings"),
        ("a in [1, 'x']", "mixes text and numbers"),
        ("s not in [1]", "mixes text and numbers"),
        ("a in []", "empty list"),
        ("0 < a in [1]", "write a list"),
        ("0 < s < 5", "mixes text and numbers"),
        ("s == '\\ud800'", "may not stand"),
        ("abs(s)", "calculates with text"),
        ("abs(a, b)", "may not stand"),
        ("abs()", "may not stand"),
        ("abs(x=a)", "may not stand"),
        ("hour(a)", "'a' is float; a time is int (epoch ms) or str (RFC 3339)"),
        ("day(c)", "'c' is bool; a time is"),
        ("month(at + 1)", "month() takes one field"),
        ("hour(5)", "hour() takes one field"),
        ("weekday(at, 1)", "weekday() takes one field"),
        ("hours(at)", "did you mean hour()?"),
        ("year(at)", "hour(at), minute(at), day(at), month(at), weekday(at) of a time"),
        ("minute(z)", "no field 'z'"),
        ("(" * 5_000 + "a" + ")" * 5_000, "not an expression: too many nested parentheses"),
        ("-" * 100_000 + "a", "nested too deeply"),
        ("-" * 700 + "a", "nested too deeply"),
        (" + ".join(["a"] * 150), "nested too deeply"),
        ("f(a)", "may not stand"),
        ("a.real", "may not stand"),
        ("a[0]", "may not stand"),
        ("[a]", "may not stand"),
        ("(a, b)", "may not stand"),
        ("a if b else c", "may not stand"),
        ("lambda: a", "may not stand"),
        ("(b := a)", "may not stand"),
        ("a is None", "a condition is null when one of its fields is null"),
        ("s in 'JFK'", "may not stand"),
        ("a == None", "'None' may not stand"),
        ("s == b'x'", "may not stand"),
        ("a > 1j", "may not stand"),
        ("a > 1e999", "may not stand"),
        ("b > 9223372036854775808", "may not stand"),
        ("~b", "write and, or, not"),
        ("(a > 1) & (b > 1)", "write and, or, not"),
        ("(a > 1) | c", "write and, or, not"),
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
    with pytest.raises(ValueError, match=r"may|names|text|field|not an|is float|is bool|list") as caught:
        parse_column(text, TYPES)
    assert cause in str(caught.value)


@given(st.integers(2**62, 2**63 - 1), st.integers(5, 60))
def test_large_whole_numbers_never_overflow(value: int, power: int) -> None:
    """However many whole numbers are multiplied, the result is a float, if need be an infinite one."""
    column = parse_column(" * ".join(["b"] * power) + " > 0", TYPES)
    assert value_of(column.source, {"b": value}) == 1.0
    product = value_of(parse_column(" * ".join(["b"] * power), TYPES).source, {"b": value})
    assert product == math.inf or product > 0


@given(st.floats(-100, 100), st.integers(-3, 3), st.booleans())
def test_what_is_divided_by_zero_is_null(a: float, b: int, c: bool) -> None:
    """Wherever the division stands, so that a condition never depends on the order of its parts; else it is that of Python."""
    row = {"a": a, "b": b, "c": c}
    for text in ("a / b", "c or a / b > 1", "a / b > 1 or c", "abs(a / b)", "0 < 1 / b < 2", "1 / (a / b)", "a / b in [0.5]"):
        found = value_of(parse_column(text, TYPES).source, row)
        if b == 0 or ("(a / b)" in text and text.startswith("1 /") and a / b == 0):
            assert found is None
        else:
            assert found == float(eval(text, {}, row))  # noqa: S307 - text made above


def test_infinity_is_compared_and_what_is_no_number_is_null() -> None:
    """A number beyond a double is infinite; infinity minus infinity, or by infinity, or times zero, has no value."""
    row = {"a": 1e308, "b": 0}
    values = [value_of(parse_column(text, TYPES).source, row) for text in ("a * 10", "a * 10 > 5", "-(a * 10)", "a / (a * 10)")]
    assert values == [math.inf, 1.0, -math.inf, 0.0]
    for text in ("a * 10 - a * 10", "(a * 10) / (a * 10)", "a * 10 * b", "a * 10 - abs(a * 10) > 0", "1 or a * 10 * b"):
        assert value_of(parse_column(text, TYPES).source, row) is None


@pytest.mark.parametrize(
    ("ms", "told", "parts"),
    [
        (0, "1970-01-01T00:00:00Z", [0, 0, 1, 1, 3]),
        (1_709_251_199_999, "2024-03-01T05:29:59.999+05:30", [23, 59, 29, 2, 3]),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z", [23, 59, 31, 12, 4]),
        (-1, "1969-12-31T23:59:59Z", None),
        (2**63 - 1, "a while ago", None),
        (253_402_300_800_000, "2024-03-01T00:00:00", None),
    ],
)
def test_parts_of_a_time(ms: int, told: str, parts: list[int] | None) -> None:
    """In UTC, of epoch ms and of RFC 3339 alike; null of what is no moment from 1970 to 9999 or has no offset. Monday is 0."""
    for field in ("at", "told"):
        columns = [parse_column(f"{name}({field})", TYPES) for name in ("hour", "minute", "day", "month", "weekday")]
        found = [number_of(column)(SimpleNamespace(at=ms, told=told)) for column in columns]
        assert found == ([None] * 5 if parts is None else parts)


def test_what_is_a_condition() -> None:
    """A comparison, a list, `not`, and what joins them can only be true or false; arithmetic is a number."""
    truths = ("0 < a < b", "a in [1]", "s not in ['x']", "not a", "c and a / b > 1", "hour(at) >= 22 or c")
    assert all(parse_column(text, TYPES).truth for text in truths)
    assert not any(parse_column(text, TYPES).truth for text in ("a / b", "abs(a)", "hour(at)", "c or a", "-c"))


def test_a_time_is_read_once() -> None:
    """However many of its parts a condition asks for."""
    assert parse_column("hour(told) >= 22 or hour(told) < 6 or weekday(told) == 6", TYPES).source.count("utc(") == 1
