"""The archive as SQL reads it: columns, what events carried beyond them, and names that clash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.oracles import aggregation_kinds
from tests.verify.archive import Raw, archived
from tests.verify.projects import WORDS

import tidemill as tm
from tidemill.archive.columns import event_folder, table_schema
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregations import Mean
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.verify.aggregates import _MEANINGS
from tidemill.verify.checks import view_archive
from tidemill.verify.meaning import Meaning
from tidemill.verify.sql import AskedMoment, SqlView

T0 = 1_700_000_000_000


def raw(offset: int, **data: Any) -> Raw:
    """An event of shop n."""
    return Raw("sold", 0, offset, T0 + offset, T0 + offset, None, {"at": T0 + offset, "shop": "n", **data})


def one(view: FeatureView, table: Any, entity: str = "n") -> list[Any]:
    """The values of a view's features a second later."""
    sql = SqlView(view, table, threads=1)
    (answer,) = sql.answers([AskedMoment(entity, T0 + 1_000)])
    sql.close()
    return [found.value for found in answer.features.values()]


def test_there_is_a_meaning_for_every_aggregate() -> None:
    """An aggregate that is added must be said in SQL too."""
    words = {kind.word for kind in aggregation_kinds()}
    assert words - set(_MEANINGS) == set(), "say in shared/tidemill/verify/aggregates.py what it means"
    assert set(_MEANINGS) - words == set()


def test_generated_projects_draw_every_aggregate() -> None:
    """One that is never drawn is never compared."""
    assert sorted(WORDS) == sorted(_MEANINGS), "add it to WORDS of tests/verify/projects.py"


def test_an_aggregate_without_a_meaning_is_named() -> None:
    """Not passed over."""

    class Median(Mean):
        word = "median"

    view = FeatureView("shops", Event("sold", {"at": int, "shop": str, "x": float}, time="at"), "shop", [Median(column="x")])
    sql = SqlView(view, archived(view.source, []), threads=1)
    with pytest.raises(TidemillError, match="knows no aggregate 'median'"):
        sql.answers([AskedMoment("n", T0)])


@pytest.mark.parametrize("tile", ["1m", "5m", "15m", "1h"])
@pytest.mark.parametrize("window", ["1h", "14h", "15h", "42h", "2d", "7d", "8d", "42d", "50d"])
def test_names_and_tiles_are_those_of_the_plan(tile: str, window: str) -> None:
    """Read from the arguments by another code than that which plans the view."""
    features = [
        tm.count(),
        tm.mean("x"),
        tm.rate("x > 1", name="high"),
        tm.last("x"),
        tm.age(windows=[window]),
        tm.last_k("x", 3),
        tm.distinct("x"),
    ]
    event = Event("sold", {"at": int, "shop": str, "x": float}, time="at")
    view = FeatureView("shops", event, "shop", features, windows=[window, "lifetime"], tile=tile)
    meant = [(feature.name, feature.window.tile_ms if feature.window.length_ms else None) for feature in Meaning(view).features]
    assert meant == [(feature.name, feature.window.grid.tile_ms if feature.window.bounded else None) for feature in view.served]


@pytest.mark.parametrize(
    ("kind", "values", "found"),
    [
        (int, (1, "x", 2.5, None, 2**70, True, 300.0, -4e0, 2.0**53, 1e300), [1.0, 300.0, -4.0]),
        (float, (1, 0.5, "x", True, 2**63), [1.0, 0.5, 2.0**63]),
        (bool, (True, 1, "x"), [1.0]),
    ],
)
def test_a_field_declared_later_has_the_values_of_its_type(kind: type, values: tuple[Any, ...], found: list[float]) -> None:
    """They lie in `_extra`; a value of another type is null, but a whole number is a float too."""
    event = Event("sold", {"at": int, "shop": str, "x": kind | None}, time="at")
    view = FeatureView("shops", event, "shop", [tm.last_k("x", 9)])
    table = archived(event, [raw(offset, x=value) for offset, value in enumerate(values)], frozenset({"x"}))
    assert one(view, table) == [found]


@pytest.mark.parametrize(
    ("kind", "texts", "found"),
    [
        (int, ("1", " 2 ", "3.0", "4e0", "x", "2.5", "", "9" * 19), [1.0, 2.0, 3.0, 4.0]),
        (float, ("1", ".5", " +1e3", "nan", "x", "1e999", "1,000"), [1.0, 0.5, 1000.0]),
        (bool, ("t", "True", " 1", "yes", "f"), [1.0, 1.0, 1.0, 0.0]),
    ],
)
def test_a_field_declared_later_has_the_values_that_csv_has_as_text(kind: type, texts: tuple[str, ...], found: list[float]) -> None:
    """In rows of a loaded file; of a live event a text is no number."""
    event = Event("sold", {"at": int, "shop": str, "x": kind | None}, time="at")
    view = FeatureView("shops", event, "shop", [tm.last_k("x", 9)])
    raws = [raw(offset, x=value) for offset, value in enumerate(texts)]
    assert one(view, archived(event, [each._replace(topic="load:0123") for each in raws], frozenset({"x"}))) == [found]
    assert one(view, archived(event, raws, frozenset({"x"}))) == [None]


def test_a_column_of_another_type_is_that_of_an_earlier_declaration() -> None:
    """Whole numbers are floats; texts are no numbers, and the later values lie in `_extra`."""
    was, event = Event("sold", {"at": int, "shop": str, "x": int | None, "y": str | None}, time="at"), Event(
        "sold", {"at": int, "shop": str, "x": float | None, "y": float | None}, time="at"
    )  # fmt: skip
    view = FeatureView("shops", event, "shop", [tm.sum("x"), tm.sum("y")])
    raws = [raw(0, x=2, y="3"), raw(1, x=0.5, y=4.0)._replace(aside=frozenset({"x", "y"}))]
    assert one(view, archived(was, raws)) == [2.5, 4.0]


def test_fields_may_have_the_names_of_our_own_columns() -> None:
    """In any case: a table has one column for Shop and shop, and none for a second `_Time`."""
    event = Event("sold", {"at": int, "shop": str, "Shop": float, "time": int, "key": str, "_Time": float, "seq": bool}, time="at")
    features = [tm.sum("Shop", name="a"), tm.sum("time", name="b"), tm.rate("key == 'k' and seq", name="c"), tm.sum("_Time", name="d")]
    view = FeatureView("shops", event, "shop", features)
    assert one(view, archived(event, [raw(0, Shop=1.5, time=7, key="k", _Time=2.5, seq=True)])) == [1.5, 7.0, 1.0, 2.5]


def test_more_than_255_different_values_are_estimated() -> None:
    """A served estimate may lie within the stated error; up to 255 it must be exact."""
    event = Event("sold", {"at": int, "shop": str, "x": int}, time="at")
    view = FeatureView("shops", event, "shop", [tm.distinct("x")])
    for many, slack in ((255, 0.0), (300, 300 * 6 * 0.023)):
        sql = SqlView(view, archived(event, [raw(offset, x=offset) for offset in range(many)]), threads=1)
        (answer,) = sql.answers([AskedMoment("n", T0 + 1_000)])
        assert answer.features["distinct_x"].value == float(many)
        assert answer.features["distinct_x"].slack == pytest.approx(slack)


def test_a_delta_table_is_read_with_the_columns_that_are_needed(tmp_path: Path) -> None:
    """After a column was added, and after files were merged."""
    was = Event("sold", {"at": int, "shop": str}, time="at")
    event = Event("sold", {"at": int, "shop": str, "x": float | None, "unused": str | None}, time="at")
    store = OfflineStore(tmp_path)
    for number, (declared, added) in enumerate(((was, raw(0, x=1.5)), (event, raw(1, x=2.0)))):
        table = store.counted_table(event_folder("sold"), table_schema(declared))
        table.open()
        table.append(archived(declared, [added]), {"sold-0": (number, number + 1)})
    store.snapshot(event_folder("sold"))._table.optimize.compact()
    view = FeatureView("shops", event, "shop", [tm.sum("x")])
    read = view_archive(store, view)
    assert "unused" not in read.column_names
    assert one(view, read) == [3.5]
