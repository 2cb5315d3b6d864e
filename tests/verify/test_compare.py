"""What is told beside SQL: which knowledge and order an answer may have had, and what is counted as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from tests.verify.archive import Raw, archived

import tidemill as tm
from tidemill.archive.columns import event_folder, table_schema
from tidemill.declarations import Event, FeatureView, Model, Outcome
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import view_table
from tidemill.testing import World
from tidemill.verify.checks import check_logged, check_served, check_training_set, view_archive
from tidemill.verify.compare import SETTLED_MS, Compared, Told, compare, possible
from tidemill.verify.sql import AskedMoment, SqlView, Value
from tidemill.verify.stamped import records_of

T0 = 1_700_000_000_000
MINUTE = 60_000
SOLD = Event("sold", {"at": int, "shop": str, "x": float | None}, time="at")
SHOPS = FeatureView("shops", SOLD, "shop", [tm.count(), tm.sum("x"), tm.last("x")], windows=["10m"], tile="5m")


def sold(minute: float, x: float, partition: int = 0, offset: int = 0, known: float | None = None, id: str | None = None) -> Raw:
    """An event; `known`: minutes too."""
    time_ms, known_ms = T0 + int(minute * MINUTE), T0 + int((minute if known is None else known) * MINUTE)
    return Raw("sold", partition, offset, known_ms, time_ms, id, {"at": time_ms, "shop": "n", "x": x})


def told(asked: Sequence[AskedMoment], count: float, total: float, last: float | None, state: str = "PRESENT") -> Told:
    """An answer for the shop."""
    values: dict[str, tuple[str | None, Value | None]] = {
        "count_10m": (state, count), "sum_x_10m": (state, total), "last_x": ("PRESENT", last)
    }  # fmt: skip
    return Told("shops of n", asked, values)


def view_of(*raws: Raw) -> SqlView:
    """SQL over these events."""
    return SqlView(SHOPS, archived(SOLD, raws), threads=1)


NOW = T0 + 2 * MINUTE


@pytest.mark.parametrize(
    ("count", "total", "last", "differ"),
    [(1.0, 1.0, 1.0, 0), (2.0, 3.0, 2.0, 0), (2.0, 1.0, 1.0, 3), (3.0, 3.0, 2.0, 1), (0.0, 0.0, None, 3)],
)
def test_an_event_on_its_way_may_have_been_seen(count: float, total: float, last: float | None, differ: int) -> None:
    """With it or without it is right; a value that neither gives differs, and so do values that are not of one moment."""
    sql = view_of(sold(0, 1.0), sold(2 - 1 / 60, 2.0, offset=1))
    asked = possible(sql, "n", NOW, NOW)
    assert [question.before - NOW for question in asked] == [-SETTLED_MS, -999]
    compared = compare("w", sql, [told(asked, count, total, last)])
    assert (compared.values, compared.undecided) == (3, 0)
    assert compared.differ == differ


def test_an_example_names_the_events_that_went_in() -> None:
    """With their values, the newest last, and whether they count."""
    sql = view_of(sold(0, 1.0, id="a"), sold(1, 1.0, offset=1, id="a"), sold(1.5, 2.0, offset=2))
    compared = compare("w", sql, [told([AskedMoment("n", NOW)], 3.0, 3.0, 2.0)])
    (example,) = compared.examples
    assert (example.feature, example.told, example.sql) == ("count_10m", "3.0", "2.0")
    assert [(event["id"], event["counts"], event["x"]) for event in example.events] == [
        ("a", True, 1.0),
        ("a", False, 1.0),
        (None, True, 2.0),
    ]


def test_a_value_that_depends_on_the_order_of_partitions_is_undecided() -> None:
    """Two events at one time in two partitions: either may be the newer; a third value is undecided, since other orders are possible."""
    sql = view_of(sold(0, 1.0, partition=0), sold(0, 2.0, partition=1))
    for last, undecided in ((1.0, 0), (2.0, 0), (3.0, 1)):
        compared = compare("w", sql, [told([AskedMoment("n", NOW)], 2.0, 3.0, last)])
        assert (compared.differ, compared.undecided) == (0, undecided)


def test_a_value_that_every_order_gives_does_not_differ() -> None:
    """Beside others that depend on the order of three partitions, which lie in an order that is not tried, and are undecided."""
    view = FeatureView("shops", SOLD, "shop", [tm.count(), tm.last("x"), tm.first("x")], windows=["10m"], tile="5m")
    sql = SqlView(view, archived(SOLD, [sold(0, float(p), partition=p) for p in range(3)]), threads=1)
    values: dict[str, tuple[str | None, Value | None]] = {
        "count_10m": ("PRESENT", 3.0), "last_x": ("PRESENT", 2.0), "first_x": ("PRESENT", 2.0)
    }  # fmt: skip
    compared = compare("w", sql, [Told("shops of n", [AskedMoment("n", NOW)], values)])
    assert (compared.values, compared.differ, compared.undecided) == (3, 0, 2)


def test_events_of_one_partition_have_one_order() -> None:
    """A worker folds them by offset, history by when they became known; no third order is possible."""
    sql = view_of(sold(0, 1.0, offset=0, known=1), sold(0, 2.0, offset=1, known=0.5))
    assert [compare("w", sql, [told([AskedMoment("n", NOW)], 2.0, 3.0, last)]).differ for last in (1.0, 2.0)] == [0, 0]


def test_what_is_withheld_is_counted_apart() -> None:
    """INVALID where SQL has a value: not a difference, but not passed over."""
    sql = view_of(sold(0, 1.0))
    compared = compare("w", sql, [Told("n", [AskedMoment("n", NOW)], {"count_10m": ("INVALID", None), "sum_x_10m": ("NULL_VALUE", None)})])
    assert (compared.withheld, compared.differ) == (1, 1)


def stored(root: Path, raws: Sequence[Raw], event: Event = SOLD) -> OfflineStore:
    """A real Delta table of events."""
    store = OfflineStore(root)
    table = store.counted_table(event_folder(event.name), table_schema(event))
    table.open()
    table.append(archived(event, raws), {"sold-0": (0, len(raws))})
    return store


def answers(count: float) -> Any:
    """A service that answers every question with the same count."""

    def served(view: FeatureView, entities: Sequence[str], at_ms: int) -> list[Mapping[str, tuple[str, Value | None]]]:
        return [{"count_10m": ("PRESENT", count)} for _ in entities]

    return served


def test_a_difference_counts_when_it_is_found_twice(tmp_path: Path) -> None:
    """An archive that is late differs once, and not again when it has what was seen."""
    store, late = stored(tmp_path, [sold(0, 1.0)]), stored(tmp_path / "late", [])
    tables = [view_archive(store, SHOPS), view_archive(late, SHOPS), *[view_archive(store, SHOPS)] * 2]
    (compared,) = check_served([SHOPS], lambda _: tables.pop(0), answers(1.0), lambda: T0 + 1, lambda: None, 5, 1)
    assert (compared.values, compared.differ, tables) == (1, 0, [])
    (wrong,) = check_served([SHOPS], lambda view: view_archive(store, view), answers(2.0), lambda: T0 + MINUTE, lambda: None, 5, 1)
    assert (wrong.values, wrong.differ) == (1, 1)


def predicted(id: str, at_ms: int, served_ms: int, value: float | None, next: int, shop: str = "n") -> dict[str, Any]:
    """A row of the prediction log. `next`: the fence of the view that it saw."""
    entities, stamp = (msgspec.json.encode(each).decode() for each in ({"shop": shop}, [[SHOPS.log, 0, next]]))
    return {"id": id, "version": "v1", "time": at_ms, "served": served_ms, "inputs": [value], "entities": entities, "stamp": stamp}


def view_rows(*known_ms: int) -> pa.Table:
    """The records of the shop in the view's log."""
    columns: dict[str, list[Any]] = {"key": ["n"] * len(known_ms), "partition": [0] * len(known_ms), "offset": [*range(len(known_ms))]}
    return pa.table(columns | {"known": pa.array(known_ms, pa.int64())})


def logged(rows: Sequence[Mapping[str, Any]], events: Sequence[Raw], records: pa.Table, feature: str = "count_10m") -> list[Compared]:
    """Predictions with one input beside these events."""
    inputs, archives = {"v1": {f"shops__{feature}": list[str]()}}, {"shops": archived(SOLD, events)}
    return check_logged([SHOPS], inputs, archives, rows, "m", lambda _view, _entities: records)


def test_a_prediction_during_a_replay_is_compared_with_what_its_stamp_says() -> None:
    """All events were published later than they became known; a value that they do not give differs, as ever."""
    events, later = [sold(minute, 1.0, offset=minute) for minute in range(4)], T0 + 10**10
    asked = [predicted(f"p{next}", T0 + next * MINUTE - 1, later + next, float(next), next) for next in (1, 2, 3, 4)]
    records = view_rows(*(event.known_ms for event in events))
    (compared,) = logged([*asked, predicted("wrong", T0 + 2 * MINUTE - 1, later, 3.0, 2)], events, records)
    assert (compared.values, compared.undecided, [example.what for example in compared.examples]) == (5, 0, ["prediction wrong"])


def test_a_prediction_during_a_replay_in_no_order_is_undecided() -> None:
    """It had seen an event that became known after one that it had not seen: which others it had seen, the time of known does not say."""
    events = [sold(0, 1.0, offset=0), sold(2, 1.0, offset=1), sold(1, 1.0, offset=2)]
    records = view_rows(*(event.known_ms for event in events))
    (compared,) = logged([predicted("p", T0 + 2 * MINUTE, T0 + 10**10, 2.0, 2)], events, records)
    assert (compared.values, compared.differ, compared.undecided) == (0, 0, 1)


def test_records_are_read_from_the_rows_of_a_view(tmp_path: Path) -> None:
    """Those of the entities that are asked about; none where the view has no rows yet."""
    view = FeatureView("shops", SOLD, "shop", [tm.count()], windows=["10m"], partitions=1)
    store, project = OfflineStore(tmp_path), Project("p", {"sold": SOLD}, {"shops": view})
    assert len(records_of(store, view, ["n"])) == 0
    table, world = view_table(project, view), World(project)
    log = store.topic_table(table)
    log.open()
    for minute, shop in enumerate(("n", "other", "n")):
        world.publish("sold", {"at": T0 + minute * MINUTE, "shop": shop, "x": 1.0}, at=T0 + minute * MINUTE)
    log.append(table.rows_of({0: world.kafka.partitions(table.topic)[0].records}), {(table.topic, 0): (0, 3)})
    assert records_of(store, view, ["n"]).drop_columns("key").to_pylist() == [
        {"partition": 0, "offset": offset, "known": T0 + offset * MINUTE} for offset in (0, 2)
    ]


def test_inputs_of_predictions_are_compared_as_float32() -> None:
    """0.1 as float32 is right, another number is not; null stands for any reason why there is no value, and for one that was withheld."""
    rows = [
        predicted(id, NOW, NOW, value, 1, shop)
        for id, shop, value in (("p1", "n", 0.10000000149011612), ("p2", "n", 0.2), ("p3", "nobody", None), ("p4", "n", None))
    ]
    (compared,) = logged(rows, [sold(0, 0.1)], view_rows(), "last_x")
    assert (compared.values, compared.differ, [example.what for example in compared.examples]) == (4, 1, ["prediction p2"])
    assert compared.withheld == 1


def test_a_logged_text_is_compared_as_the_text_for_which_its_number_stands() -> None:
    """The right one, a wrong one, one that was not there in training, and none."""
    moved = Event("moved", {"at": int, "shop": str, "status": str | None}, time="at")
    view = FeatureView("shops", moved, "shop", [tm.last("status"), tm.count()])
    raws = [
        Raw("moved", 0, i, T0 + i, T0 + i, None, {"at": T0 + i, "shop": shop, "status": status})
        for i, (shop, status) in enumerate([("a", "new"), ("a", "paid"), ("b", None), ("c", "lost")])
    ]
    told = [("right", "a", 1.0), ("wrong", "a", 0.0), ("none", "b", None), ("unknown", "c", None), ("too much", "b", 1.0)]
    rows = [
        {"id": id, "version": "v1", "time": NOW, "served": NOW, "inputs": [2.0 if shop == "a" else 1.0, number], "entities": f'{{"shop": "{shop}"}}', "stamp": "[]"}
        for id, shop, number in told
    ]  # fmt: skip
    inputs = {"v1": {"shops__count": [], "shops__last_status": ["new", "paid"]}}
    (compared,) = check_logged([view], inputs, {"shops": archived(moved, raws)}, rows, "m", lambda _view, _entities: view_rows())
    assert (compared.values, compared.differ, compared.withheld) == (10, 2, 1)
    assert [(example.what, example.feature, example.told, example.sql) for example in compared.examples] == [
        ("prediction wrong", "last_status", "'new'", "'paid'"),
        ("prediction too much", "last_status", "'paid'", "null NULL_VALUE"),
    ]


ASKED = Event("asked", {"at": int, "who": str, "shop": str}, time="at")
LEFT = Event("left", {"at": int, "who": str, "gone": bool}, time="at")
MODEL = Model("leaving", ASKED, "at", "who", [SHOPS], Outcome(LEFT, "gone", "who", within="1h"), lambda: None)


def test_rows_of_a_training_set_are_compared() -> None:
    """A wrong feature, a wrong label, a row that nobody asked for and a missing row are found."""
    announced = [
        Raw("asked", 0, i, T0 + i * MINUTE, T0 + i * MINUTE, None, {"at": T0 + i * MINUTE, "who": f"w{i}", "shop": "n"}) for i in range(4)
    ]
    brought = [Raw("left", 0, i, T0 + 10 * MINUTE, T0, None, {"at": T0, "who": f"w{i}", "gone": True}) for i in range(4)]
    right = {"shops__count_10m": 1.0, "shops__sum_x_10m": 5.0, "shops__last_x": 5.0, "label": 1.0}
    rows = [{"subject": f"w{i}", "time": T0 + i * MINUTE, **right} for i in range(4)]
    asking, archives = (archived(ASKED, announced), archived(LEFT, brought)), {"shops": archived(SOLD, [sold(0, 5.0)])}

    def differ(rows: list[dict[str, Any]]) -> list[int]:
        found = check_training_set(MODEL, pa.Table.from_pylist(rows), asking, archives, T0 + 60 * MINUTE, 100, 0)
        return [compared.differ for compared in found]

    assert differ(rows) == [0, 0, 0]
    assert differ([{**rows[0], "shops__count_10m": 2.0}, *rows[1:]]) == [0, 0, 1]
    assert differ([{**rows[0], "label": 0.0}, *rows[1:]]) == [1, 0, 0]
    assert differ([{**rows[0], "subject": "x"}, *rows[1:]]) == [1, 1, 0]
    assert differ(rows[1:]) == [0, 1, 0]
    with pytest.raises(TidemillError, match="no column 'label'"):
        differ([{"subject": "w0", "time": T0}])


def test_a_row_does_not_see_the_event_that_asks() -> None:
    """Unless it became known before the row's time; others known in that moment are seen, but no second publication of it."""
    view = FeatureView("own", ASKED, "shop", [tm.count()], windows=["10m"])
    model = Model("leaving", ASKED, "at", "who", [view], Outcome(LEFT, "gone", "who", within="1h"), lambda: None)
    announced = [
        Raw("asked", 0, 0, T0, T0, "a", {"at": T0, "who": "w0", "shop": "n"}),
        Raw("asked", 0, 1, T0, T0, "b", {"at": T0, "who": "w1", "shop": "n"}),
        Raw("asked", 0, 2, T0 - 1, T0, "c", {"at": T0, "who": "w2", "shop": "n"}),
        Raw("asked", 0, 3, T0, T0, "a", {"at": T0, "who": "w0", "shop": "n"}),
    ]
    brought = [Raw("left", 0, i, T0 + MINUTE, T0, None, {"at": T0, "who": f"w{i}", "gone": True}) for i in range(3)]
    asking = archived(ASKED, announced), archived(LEFT, brought)
    rows = [{"subject": f"w{i}", "time": T0, "label": 1.0, "own__count_10m": count} for i, count in enumerate((2.0, 2.0, 3.0))]
    found = check_training_set(model, pa.Table.from_pylist(rows), asking, {"own": asking[0]}, T0 + 60 * MINUTE, 100, 0)
    assert [compared.differ for compared in found] == [0, 0, 0]
