"""What a model makes of its inputs."""

from __future__ import annotations

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count, last, mean

SOLD = Event("sold", {"at": int, "shop": str, "till": int, "price": float}, time="at")
ASKED = Event("asked", {"at": int, "id": str, "shop": str, "till_id": int, "amount": float, "card": str}, time="at")
PAID = Event("paid", {"at": int, "id": str, "late_days": float | None}, time="at")
SHOPS = FeatureView("shops", SOLD, "shop", [count(), mean("price")], windows=["1h", "1d"])
TILLS = FeatureView("tills", SOLD, Entity("till_id", field="till"), [last("price")])


def made() -> list[int]:
    """Stands for a function that makes a pipeline; it is never called by declaring."""
    raise AssertionError


MODEL = Model(
    "late", ASKED, at="at", subject="id", outcome=Outcome(PAID, "late_days > 3", subject="id", within="30d"), pipeline=made,
    inputs=[Request("amount"), SHOPS.select("mean_price_1d", "count_1h"), Request("card", str), TILLS],
)  # fmt: skip


def test_inputs_have_a_fixed_order() -> None:
    """Features of the views in the order of the inputs and of the selection, then the request's values."""
    assert MODEL.input_names == ["shops__mean_price_1d", "shops__count_1h", "tills__last_price", "amount", "card"]


def test_a_request_must_give_keys_and_values() -> None:
    """Each entity once, under the name of the request, then the values."""
    assert MODEL.request_fields == ["shop", "till_id", "amount", "card"]
    twice = Model("twice", ASKED, "at", "id", [SHOPS.select("count_1h"), SHOPS.select("count_1d")], MODEL.outcome, made)
    assert twice.request_fields == ["shop"]
    assert twice.views == (SHOPS,)


def test_views_and_selections_are_listed() -> None:
    """A whole view is the selection of all its features."""
    assert MODEL.views == (SHOPS, TILLS)
    assert [(selection.view.name, selection.names) for selection in MODEL.selections] == [
        ("shops", ("mean_price_1d", "count_1h")),
        ("tills", ("last_price",)),
    ]
    assert [request.name for request in MODEL.requests] == ["amount", "card"]


def test_an_outcome_is_parsed() -> None:
    """The condition's fields and the wait are known."""
    assert MODEL.outcome.column.fields == ("late_days",)
    assert MODEL.outcome.wait.within_ms == 30 * 86_400_000
    assert MODEL.outcome.name == "of paid"
