"""What a view makes of its declaration: names, windows, tiles and columns."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill import Entity, Event, FeatureView, age, count, last, max, mean, min, rate, std, sum
from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError
from tidemill.kernel.view import ViewKernel

SOLD = Event("shop.sold", {"shop": str, "till": int, "at": str, "price": float | None, "kind": str, "n": int}, time="at")


def declared(*features: Any, **given: Any) -> FeatureView:
    """A view of sales by shop."""
    return FeatureView("sales", SOLD, "shop", features, **given)


def test_a_feature_is_named_for_word_column_and_window() -> None:
    """One feature per aggregate and window, in the order written; what lasts for life has no window in its name."""
    view = declared(count(), mean("price"), last("price"), age(), rate("price > 5", name="dear", windows=["7d"]), windows=["1h", "24h"])
    assert [feature.name for feature in view.served] == [
        "count_1h", "count_24h", "mean_price_1h", "mean_price_24h", "last_price", "age", "dear_7d",
    ]  # fmt: skip


def test_every_word_makes_its_aggregate() -> None:
    """The words a project imports give features named for them."""
    view = declared(*(word("price") for word in (sum, mean, min, max, std, count, last, age)))
    assert [feature.name for feature in view.served] == [
        f"{word}_price" for word in ("sum", "mean", "min", "max", "std", "count", "last", "age")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("window", "tile"),
    [
        ("5m", "5m"), ("12h", "5m"), ("14h", "5m"), ("15h", "15m"), ("42h", "15m"), ("43h", "1h"), ("7d", "1h"), ("8d", "6h"), ("42d", "6h"),
        ("43d", "1d"), ("365d", "1d"),
    ],
)  # fmt: skip
def test_a_longer_window_has_coarser_tiles(window: str, tile: str) -> None:
    """The finest tile that cuts a window into at most 168, and days beyond 42 days."""
    (feature,) = declared(count(), windows=[window]).served
    assert feature.tile_ms == parse_ms(tile)
    assert feature.window_ms == parse_ms(window)


def test_a_window_that_the_ladder_cannot_cut_says_so() -> None:
    """168 tiles of an hour are possible, 169 are not, and six hours do not divide them."""
    assert declared(count(), windows=["168h"]).served[0].tile_ms == parse_ms("1h")
    with pytest.raises(DeclarationError, match="169h is not a whole number of 6h tiles"):
        declared(count(), windows=["169h"])


def test_tiles_can_be_chosen() -> None:
    """`tile` is the finest, `tiles` names one window's own; both may be finer or coarser than the ladder."""
    view = declared(count(), windows=["1m", "1h", "14d"], tile="10s", tiles={"14d": "7d"})
    assert [feature.tile_ms for feature in view.served] == [10_000, 300_000, 604_800_000]
    assert declared(count(), windows=["2d"], tile="2d").served[0].tile_ms == parse_ms("2d")


def test_the_key_of_a_view_can_have_another_name_than_its_field() -> None:
    """An Entity says under which name requests give it."""
    assert declared(count()).key.field == "shop"
    view = FeatureView("tills", SOLD, Entity("till_id", field="till"), [count()])
    assert (view.key.name, view.key.field) == ("till_id", "till")


def test_a_view_folds_only_the_fields_it_needs() -> None:
    """The fields of all columns, each once and sorted; counting all events needs none."""
    assert declared(count()).value_fields == ()
    assert declared(mean("price"), rate("kind == 'a' and n > 1", name="r"), sum("n")).value_fields == ("kind", "n", "price")


def test_aggregates_of_one_column_share_their_slots() -> None:
    """Count, mean and deviation of a column need three numbers, not six."""
    kernel = ViewKernel(declared(count("price"), mean("price"), std("price"), sum("price"), windows=["1h"]))
    assert [slot.kind for slot in kernel.resolutions[0].layout.slots] == ["n", "sum", "m2"]


def test_an_event_keeps_a_copy_of_its_fields() -> None:
    """A dict of fields shared by two events and changed later changes neither."""
    fields: dict[str, Any] = {"at": int}
    event = Event("e", fields, time="at")
    fields["more"] = str
    assert list(event.fields) == ["at"]


def test_an_event_knows_its_types() -> None:
    """Types without null, whether null is allowed, and what can hold a time."""
    assert SOLD.types == {"shop": str, "till": int, "at": str, "price": float, "kind": str, "n": int}
    assert [name for name in SOLD.fields if SOLD.nullable(name)] == ["price"]
    assert [name for name in SOLD.fields if SOLD.is_time(name)] == ["shop", "till", "at", "kind", "n"]


def test_durations_of_declarations_are_in_ms() -> None:
    """`future_ms` and `ttl_ms` say the same as the text."""
    assert SOLD.future_ms == 3_600_000
    assert declared(count(), ttl="2d").ttl_ms == 172_800_000
    assert declared(count()).ttl_ms is None
