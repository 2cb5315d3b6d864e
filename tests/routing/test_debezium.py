"""Changes of a database's rows as events, in Debezium's JSON with and without schemas."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, Field, age, count, last, sum
from tidemill.declarations.project import Project
from tidemill.declarations.topics import DEBEZIUM_FIELDS
from tidemill.records import DeadLetterRecord, decoder
from tidemill.routing.debezium import change_of
from tidemill.routing.events import EventReader
from tidemill.routing.router import Router
from tidemill.routing.wire import opened
from tidemill.testing import World

T0 = 1_700_000_000_000
TOPIC = "pg.public.orders"


def orders(**more: Any) -> Project:
    """The changes of a table of orders."""
    changed = Event(
        "order_changed",
        {
            "at": Field(int, path="__source_ts_ms"),
            "op": Field(str, path="__op"),
            "deleted": Field(bool, path="__deleted"),
            "id": int,
            "customer": str,
            "amount": float,
            "before": Field(float | None, path=["__before", "amount"]),
        },
        time="at",
        topic=TOPIC,
        envelope="debezium",
        **more,
    )
    view = FeatureView(
        "customers",
        changed,
        "customer",
        [count(), sum("amount"), sum("before"), last("amount"), sum("op == 'c'", name="made")],
        windows=["1h"],
    )
    return Project("shop", {changed.name: changed}, {"customers": view})


def change(op: str | None, before: Any, after: Any, at: int = T0, **more: Any) -> dict[str, Any]:
    """A change as Debezium writes it."""
    source = {"version": "3.0", "connector": "postgresql", "ts_ms": at, "db": "shop", "table": "orders", "lsn": 7}
    return {"before": before, "after": after, "source": source, "transaction": None, "op": op, "ts_ms": at + 40, **more}


def row(amount: float, customer: str = "ann") -> dict[str, Any]:
    """A row of the table."""
    return {"id": 1, "customer": customer, "amount": amount, "note": "x}y"}


def with_schema(found: dict[str, Any]) -> dict[str, Any]:
    """The same as the JSON converter writes it with `schemas.enable=true`."""
    return {"schema": {"type": "struct", "fields": [{"field": "op"}], "name": "Envelope"}, "payload": found}


@pytest.mark.parametrize("wrap", [dict, with_schema])
def test_rows_are_events(wrap: Any) -> None:
    """Made, read by the snapshot, changed: three events; sums before and after tell what the table holds now."""
    world = World(orders())
    for at, found in enumerate([change("c", None, row(5.0)), change("r", None, row(7.0)), change("u", row(5.0), row(9.0), T0 + 3)]):
        world.receive("order_changed", json.dumps(wrap(found)).encode(), at=T0 + 100 + at)
    values = {name: found.value for name, found in world.features("customers", "ann").items()}
    assert values == {"count_1h": 3.0, "sum_amount_1h": 21.0, "sum_before_1h": 5.0, "last_amount": 9.0, "made_1h": 1.0}
    assert world.dead_letters == []


def test_deletes_are_passed_over_or_events() -> None:
    """A delete is no event, unless it is declared as one: then it is the row as it was; the tombstone that follows is none in any case."""
    gone = json.dumps(change("d", row(5.0), None)).encode()
    passing, keeping = Router(orders()), Router(orders(deletes="keep"))
    assert passing.route(TOPIC, 0, 0, T0, None, gone, []) == passing.route(TOPIC, 0, 1, T0, None, None, []) == []
    assert passing.no_event == {(TOPIC, "delete"): 1, (TOPIC, "empty"): 1}
    ((_, _, key, value),) = keeping.route(TOPIC, 0, 0, T0, None, gone, [])
    assert (key, json.loads(value)["values"]) == (b"ann", {"amount": 5.0, "op": "d"})


@pytest.mark.parametrize(
    "found",
    [
        {"status": "BEGIN", "id": "571:53195829", "event_count": None, "ts_ms": T0},
        {"status": "END", "id": "571:53195829", "event_count": 2},
        {"source": {"ts_ms": T0}, "databaseName": "shop", "ddl": "ALTER TABLE orders ADD x int", "ts_ms": T0},
        change("t", None, None),
        change("m", None, None, message={"prefix": "p", "content": "YQ=="}),
    ],
)
def test_what_is_no_row_is_passed_over(found: dict[str, Any]) -> None:
    """Markers of transactions, changes of the schema, truncated tables and messages are counted, with and without schema."""
    router = Router(orders())
    for wrapped in (found, with_schema(found)):
        assert router.route(TOPIC, 0, 0, T0, None, json.dumps(wrapped).encode(), []) == []
    assert router.no_event == {(TOPIC, "no_row"): 2}


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [
        (json.dumps(row(5.0)), "bad_envelope", "no change that Debezium captured: it has no op; leave envelope= out"),
        (json.dumps(change("x", None, row(1.0))), "bad_envelope", 'it has op "x"'),
        (json.dumps(change("u", None, None)), "missing_field", 'after is null, op is "u"'),
        (json.dumps(change("c", None, {"id": 1, "customer": "ann"})), "missing_field", "amount is missing"),
        (json.dumps(change("c", None, [1])), "missing_field", "after is [1]"),
        ("[1]", "not_object", "Expected `object`"),
        ("nonsense", "not_json", "malformed"),
        (json.dumps(change("c", None, row(5.0), at=1_700_000_000)), "bad_time", "__source_ts_ms: 1700000000 ms is 1970"),
    ],
)
def test_what_cannot_be_used_is_named(value: str, reason: str, told: str) -> None:
    """The dead letter says what the change lacks."""
    ((_, _, _, letter),) = Router(orders()).route(TOPIC, 0, 0, T0, None, value.encode(), [])
    found = decoder(DeadLetterRecord).decode(letter)
    assert found.reason == reason
    assert told in found.detail


def test_a_delete_without_its_row_names_the_mend() -> None:
    """PostgreSQL logs only the key of a deleted row by default."""
    ((_, _, _, letter),) = Router(orders(deletes="keep")).route(TOPIC, 0, 0, T0, None, json.dumps(change("d", None, None)).encode(), [])
    assert "REPLICA IDENTITY FULL" in decoder(DeadLetterRecord).decode(letter).detail


@pytest.mark.parametrize("text", ["{}", " { } ", '{"a":{"b":"}"}}', '{ "a" : [ 1 ] }\n'])
def test_the_row_keeps_its_bytes(text: str) -> None:
    """Whatever the row is, the event has its members and those of the change, each once, in the publisher's own digits."""
    value = f'{{"op":"c","after":{text},"before":null,"source":{{"ts_ms":5}},"ts_ms":1e3}}'.encode()
    found = change_of(value, "pass").row
    members = {key: bytes(member) for key, member in opened(found, {}).items()}
    assert members == {
        **{key: bytes(member) for key, member in opened(text.strip(), {}).items()},
        **dict(zip(DEBEZIUM_FIELDS, [b'"c"', b"false", b"1e3", b"5", b'{"ts_ms":5}', b"null"], strict=True)),
    }


def test_a_change_that_is_delivered_again_counts_once() -> None:
    """Debezium delivers at least once, and reads a change again later: the same place of the database's log, and the same row."""
    world = World(orders())
    changes = [change("c", None, row(5.0)), change("u", row(5.0), row(7.0)), change("u", row(7.0), row(7.0))]
    for lsn, told in enumerate(changes):
        told["source"]["lsn"] = lsn
    for again_ms in (0, 0, 60_000):
        for told in changes:
            world.receive("order_changed", json.dumps({**told, "ts_ms": told["ts_ms"] + again_ms}).encode(), at=T0 + 50 + again_ms)
    found = world.features("customers", "ann")
    assert {name: found[name].value for name in ("count_1h", "sum_amount_1h", "made_1h")} == {
        "count_1h": 3, "sum_amount_1h": 19.0, "made_1h": 1,
    }  # fmt: skip


def test_an_id_of_the_publisher_stands() -> None:
    """A field that is declared as id, or a header, tells changes apart as they say."""
    told = json.dumps(change("c", None, row(5.0))).encode()
    plain, named = (EventReader(orders(**more).events["order_changed"]) for more in ({}, {"id": "id"}))
    headers = [("ce_id", b"e-1")]
    ids = [found.read(told, given, T0 + 50).id for found, given in ((plain, []), (plain, headers), (named, []))]
    assert (len(ids[0] or ""), ids[1:]) == (32, ["e-1", "1"])


HELD = [
    sum("amount * (1 - 2 * deleted)", name="amounts"),
    sum("before", name="befores"),
    sum("op in ['c', 'r']", name="made"),
    sum("deleted", name="gone"),
    sum("(amount > 2) * (1 - 2 * deleted)", name="large"),
    sum("before > 2", name="large_before"),
]
"""What the rows held now follow from, as docs/events.md says."""


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(-8, 30) | st.none()), max_size=30))
def test_differences_of_sums_are_those_of_the_rows_that_are_held(steps: list[tuple[int, int | None]]) -> None:
    """Through every history of rows that are made, changed and deleted: their sum, number and mean, and the share of some."""
    changed = orders(deletes="keep").events["order_changed"]
    view, table = FeatureView("customers", changed, "customer", HELD), dict[int, float]()
    world = World(Project("shop", {changed.name: changed}, {"customers": view}))
    for lsn, (key, quarters) in enumerate(steps):
        before = table.pop(key, None)
        after = None if quarters is None else quarters / 4
        if before is None and after is None:
            continue
        if after is not None:
            table[key] = after
        rows = [None if amount is None else row(amount) for amount in (before, after)]
        told = change("d" if after is None else "c" if before is None else "u", rows[0], rows[1])
        told["source"] |= {"lsn": lsn}
        world.receive("order_changed", json.dumps(told).encode(), at=T0 + lsn)
    found = {name: one.value or 0.0 for name, one in world.features("customers", "ann").items()}
    held = [*table.values()]
    assert found["amounts"] - found["befores"] == math.fsum(held)
    assert found["made"] - found["gone"] == len(held)
    assert found["large"] - found["large_before"] == len([amount for amount in held if amount > 2])


def test_a_column_that_becomes_null_keeps_its_value_until_the_row_is_deleted() -> None:
    """The ages tell it; after a delete a null is a null."""
    changed = orders(deletes="keep").events["order_changed"]
    fields = {**changed.fields, **changed.forms, "note": str | None}
    changed = Event("order_changed", fields, time="at", topic=TOPIC, envelope="debezium", deletes="keep")
    view = FeatureView("rows", changed, "id", [last("note"), age("note", name="noted"), age()], erase="deleted")
    world, steps = (
        World(Project("shop", {changed.name: changed}, {"rows": view})),
        [("c", None, "a"), ("u", "a", None), ("d", None, None), ("c", None, None)],
    )
    seen = []
    for second, (op, before, after) in enumerate(steps):
        old, new = (row(1.0) | {"note": note} for note in (before, after))
        told = change(op, old if op in "ud" else None, new if op in "cu" else None, T0 + 1_000 * second)
        world.receive("order_changed", json.dumps(told).encode(), at=T0 + 1_000 * second)
        seen.append([found.value for found in world.features("rows", 1, at=T0 + 1_000 * second).values()])
    assert seen == [["a", 0.0, 0.0], ["a", 1.0, 0.0], [None, None, None], [None, None, 0.0]]
