"""What each aggregate of docs/features.md is, as SQL.

An aggregate has two parts: `gather`, over the events `e` of one question, with a filter that keeps the events of the window in which the
column is not null; and `value` and `slack`, over what was gathered. `slack`: how far a right value may lie from it, since sums of doubles
depend on their order. Nothing else has slack: counts, whole numbers and values that were carried over are the same or wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tidemill.errors import TidemillError
from tidemill.limits import TEXT_CHARACTERS
from tidemill.verify.meaning import MeantFeature

_RELATIVE = 1e-9
_ROUNDED = 4 * 2.0**-52
_COUNTED = 255
_ERROR = 6 * 0.023
"""A sketch's standard error is 2.3 %. One value in 500 million lies further away than six of them."""


class Sql(NamedTuple):
    """`gather`: named aggregates of the first pass; `value`, `slack`: of the second. `x` stands for the column, as its own type."""

    gather: dict[str, str]
    value: str
    slack: str = "0.0"


def aggregate_sql(feature: MeantFeature, place: int, x: str, kept: str) -> Sql:
    """A feature's SQL. `place` keeps the names of two features apart; `x`: its column; `kept`: which events count.

    Raises TidemillError for an aggregate that the documentation does not have.
    """
    if feature.word not in _MEANINGS:
        raise TidemillError(f"verify knows no aggregate {feature.word!r}", mend="say in shared/tidemill/verify/aggregates.py what it means")
    sql = _MEANINGS[feature.word](feature, x)
    gather = {f"g{place}_{name}": text.replace("KEPT", f"FILTER (WHERE {kept})") for name, text in sql.gather.items()}
    value, slack = sql.value, sql.slack
    for name in sorted(sql.gather, key=len, reverse=True):
        value, slack = value.replace(f"@{name}", f"g{place}_{name}"), slack.replace(f"@{name}", f"g{place}_{name}")
    return Sql(gather, value, slack)


def _count(_: MeantFeature, x: str) -> Sql:
    return Sql({"n": "count(*) KEPT"}, "CAST(@n AS DOUBLE)")


def _sum(_: MeantFeature, x: str) -> Sql:
    sizes = f"sum(abs(CAST({x} AS DOUBLE))) KEPT"
    gather = {"n": "count(*) KEPT", "sum": f"fsum(CAST({x} AS DOUBLE)) KEPT", "size": sizes, "cut": f"bool_or({x} <> trunc({x})) KEPT"}
    whole = f"NOT coalesce(@cut, false) AND coalesce(@size, 0) < {2**53}"
    slack = f"CASE WHEN {whole} THEN 0.0 ELSE abs(@sum) * {_RELATIVE} + @size * @n * {_ROUNDED} END"
    return Sql(gather, "coalesce(@sum, 0.0)", slack)


def _mean(_: MeantFeature, x: str) -> Sql:
    gather = {"n": "count(*) KEPT", "sum": f"fsum(CAST({x} AS DOUBLE)) KEPT", "size": f"sum(abs(CAST({x} AS DOUBLE))) KEPT"}
    return Sql(gather, "@sum / nullif(@n, 0)", f"abs(@sum / nullif(@n, 0)) * {_RELATIVE} + @size * {_ROUNDED}")


def _rate(feature: MeantFeature, x: str) -> Sql:
    """The share of events for which the condition holds."""
    return _mean(feature, f"CAST({x} <> 0 AS BIGINT)")


def _extreme(word: str) -> Callable[[MeantFeature, str], Sql]:
    return lambda _, x: Sql({"x": f"{word}({x}) KEPT"}, "CAST(@x AS DOUBLE)")


def _std(_: MeantFeature, x: str) -> Sql:
    """In two passes, which loses no digits."""
    number = f"CAST({x} AS DOUBLE)"
    gather = {
        "n": "count(*) KEPT",
        "all": f"list({number}) KEPT",
        "mean": f"fsum({number}) KEPT / nullif(count(*) KEPT, 0)",
        "most": f"max(abs({number})) KEPT",
    }
    value = "CASE WHEN @n > 1 THEN sqrt(list_sum(list_transform(@all, lambda v: pow(v - @mean, 2))) / (@n - 1)) END"
    return Sql(gather, value, f"{value} * {_RELATIVE} + @most * @n * {_ROUNDED}")


def _ordered(word: str) -> Callable[[MeantFeature, str], Sql]:
    """Of two events at one time, the one that became known later is the newer. Of a text the first characters are kept."""

    def ordered(feature: MeantFeature, x: str) -> Sql:
        value = f"left(@x, {TEXT_CHARACTERS})" if feature.text else "CAST(@x AS DOUBLE)"
        return Sql({"x": f"{word}({x} ORDER BY e.time, e.seq) KEPT"}, value)

    return ordered


def _age(_: MeantFeature, x: str) -> Sql:
    """Seconds since the newest event. An event that lies ahead is 0 s old."""
    return Sql({"time": "max(least(e.time, e.moment)) KEPT"}, "CAST(moment - @time AS DOUBLE) / CAST(1000 AS DOUBLE)")


def _last_k(feature: MeantFeature, x: str) -> Sql:
    return Sql({"all": f"list(CAST({x} AS DOUBLE) ORDER BY e.time, e.seq) KEPT"}, f"@all[-{feature.most}:]")


def _distinct(_: MeantFeature, x: str) -> Sql:
    return Sql({"n": f"count(DISTINCT {x}) KEPT"}, "CAST(@n AS DOUBLE)", f"CASE WHEN @n > {_COUNTED} THEN @n * {_ERROR} ELSE 0.0 END")


_MEANINGS: dict[str, Callable[[MeantFeature, str], Sql]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "rate": _rate,
    "min": _extreme("min"),
    "max": _extreme("max"),
    "std": _std,
    "first": _ordered("first"),
    "last": _ordered("last"),
    "age": _age,
    "last_k": _last_k,
    "distinct": _distinct,
}
