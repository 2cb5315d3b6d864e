"""Rows of a database as reference data: what a request and a training set see of them. Run it with `pytest examples/customers`."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tidemill.testing import World

DAY_MS = 86_400_000
MONDAY_MS = 1_767_571_200_000  # 5 January 2026
NOBODY = dict.fromkeys(["last_segment", "last_country", "last_credit"], "NOT_FOUND")


@pytest.fixture
def world() -> World:
    """The project in memory, without any event yet."""
    return World.load(Path(__file__).parent)


def row(segment: str, country: str | None = "NZ", credit: float = 100.0, customer: int = 7) -> dict[str, Any]:
    """A row of the table."""
    return {"id": customer, "segment": segment, "country": country, "credit": credit}


def change(world: World, before: Any, after: Any, at: int, known: int | None = None) -> None:
    """A change of a row, as Debezium captures it."""
    operation = "d" if after is None else "c" if before is None else "u"
    told = {"op": operation, "before": before, "after": after, "source": {"ts_ms": at, "lsn": at}, "ts_ms": at}
    world.receive("customer_changed", json.dumps(told).encode(), at=at if known is None else known)


def shown(world: World, at: int) -> dict[str, Any]:
    """The row as a request at a moment sees it, or why it does not."""
    found = world.features("customers", 7, at=at)
    return {name: one.value if one.status == "PRESENT" else one.status for name, one in found.items()}


def test_a_row_as_it_is_now(world: World) -> None:
    """Made, changed, deleted, made anew: nothing is left of the row before, not even where the new one has a null."""
    assert shown(world, MONDAY_MS) == NOBODY
    change(world, None, row("new"), MONDAY_MS)
    change(world, row("new"), row("gold", credit=900.0), MONDAY_MS + DAY_MS)
    assert shown(world, MONDAY_MS + DAY_MS) == {"last_segment": "gold", "last_country": "NZ", "last_credit": 900.0}
    change(world, row("gold", credit=900.0), None, MONDAY_MS + 2 * DAY_MS)
    world.receive("customer_changed", None, at=MONDAY_MS + 2 * DAY_MS)  # the tombstone
    assert shown(world, MONDAY_MS + 2 * DAY_MS) == NOBODY
    change(world, None, row("back", country=None), MONDAY_MS + 3 * DAY_MS)
    assert shown(world, MONDAY_MS + 3 * DAY_MS) == {"last_segment": "back", "last_country": "NULL_VALUE", "last_credit": 100.0}


def test_a_delete_that_debezium_delivers_again_deletes_once(world: World) -> None:
    """It is known by its place in the database's log."""
    change(world, None, row("new"), MONDAY_MS)
    change(world, row("new"), None, MONDAY_MS + DAY_MS)
    change(world, None, row("back"), MONDAY_MS + 2 * DAY_MS)
    change(world, row("new"), None, MONDAY_MS + DAY_MS, known=MONDAY_MS + 3 * DAY_MS)
    assert shown(world, MONDAY_MS + 3 * DAY_MS)["last_segment"] == "back"


def live(world: World) -> None:
    """Sixty days: every customer returns what is ordered while the row says so. Customer 3 is deleted for the days 20 to 39."""
    for customer in range(6):
        change(world, None, row("keeps", customer=customer), MONDAY_MS)
    segments = dict.fromkeys(range(6), "keeps")
    for day in range(1, 60):
        at, customer = MONDAY_MS + day * DAY_MS, day % 6
        if day in (20, 40):
            there, gone = row(segments[3], customer=3), None
            change(world, there if day == 20 else gone, gone if day == 20 else there, at)
        if day % 5 == 0 and customer != 3:
            was, segments[customer] = segments[customer], "returns" if segments[customer] == "keeps" else "keeps"
            change(world, row(was, customer=customer), row(segments[customer], customer=customer), at)
        for who in range(6):
            order = {"order": f"{who}-{day}", "at": at + who + 1, "customer": who, "amount": 20.0 + who}
            world.publish("ordered", order, at=at + who + 1)
            world.publish(
                "closed", {"order": order["order"], "at": at + 3_600_000, "returned": segments[who] == "returns"}, at=at + 3_600_000
            )


def test_a_training_set_has_the_row_of_its_moment(world: World) -> None:
    """Each example sees the row as it was when the order came; none of a customer that was deleted then. Orders are another view's."""
    live(world)
    table = world.training_set("is_returned").table()
    rows = {found["subject"]: found for found in table.to_pylist()}
    assert [found["customers__last_segment"] for found in rows.values()].count(None) == 20
    assert {rows[f"3-{day}"]["customers__last_segment"] for day in range(20, 40)} == {None}
    assert rows["3-19"]["customers__last_country"] == rows["3-40"]["customers__last_country"] == "NZ"
    assert rows["3-30"]["orders__count_30d"] == 29
    seen = {(found["customers__last_segment"], found["label"]) for found in rows.values() if found["customers__last_segment"]}
    assert seen == {("keeps", 0.0), ("returns", 1.0)}


def test_a_model_reads_the_row(world: World) -> None:
    """It predicts from the row's text, and says which inputs a deleted customer lacks."""
    live(world)
    world.train("is_returned")
    at = MONDAY_MS + 61 * DAY_MS
    answers = {}
    for number, segment in enumerate(("keeps", "returns")):
        change(world, None, row(segment, customer=50 + number), at)
        answers[segment] = world.predict("is_returned", {"customer": 50 + number, "amount": 25.0}, at=at).output
    assert answers["keeps"] < 0.2
    assert answers["returns"] > 0.8
    change(world, row("returns", customer=51), None, at + 1)
    gone = world.predict("is_returned", {"customer": 51, "amount": 25.0}, at=at + 1)
    assert {name for name, why in gone.degraded.items() if name.startswith("customers__")} == {f"customers__{name}" for name in NOBODY}
    assert math.isfinite(gone.output)
