"""Declarations as data: written, through JSON, and read again they mean the same."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.golden_views import VIEWS
from tests.kernel.streams import ASKEW, EVENT, TILES, features_of, view_of
from tests.oracles import aggregation_kinds

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.written import (
    WrittenEvent,
    WrittenModel,
    WrittenView,
    read_event,
    read_model,
    read_view,
    write_event,
    write_model,
    write_view,
)
from tidemill.errors import DeclarationError
from tidemill.kernel.view import ViewKernel

FEATURES = [feature for kind in aggregation_kinds() for feature in features_of(kind)]


def again(view: FeatureView) -> FeatureView:
    """The view after a way through JSON, with its event."""
    event = msgspec.json.decode(msgspec.json.encode(write_event(view.source)), type=WrittenEvent)
    return read_view(msgspec.json.decode(msgspec.json.encode(write_view(view)), type=WrittenView), read_event(event))


def assert_same(found: FeatureView, view: FeatureView) -> None:
    """Both serve the same from the same stored bytes."""
    assert ViewKernel(found).definition_text == ViewKernel(view).definition_text
    assert (found.name, found.log, found.key.name, found.ttl, found.value_fields) == (
        view.name,
        view.log,
        view.key.name,
        view.ttl,
        view.value_fields,
    )
    assert found.served == view.served
    assert write_view(found) == write_view(view)


@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_golden_views_come_back(view: FeatureView) -> None:
    """The views whose stored bytes are pinned keep their definition."""
    assert_same(again(view), view)


@given(st.lists(st.sampled_from(FEATURES), min_size=1, unique=True), st.sampled_from([TILES, ASKEW]))
def test_any_view_comes_back(features: list[Aggregation], tiles: tuple[str, dict[str, str]]) -> None:
    """Every aggregation with its arguments, over any column, with any tiles."""
    view = view_of(features, tiles)
    assert_same(again(view), view)


def test_a_view_of_some_events_comes_back() -> None:
    """With the condition as it was written, and its definition."""
    view = FeatureView("v", EVENT, "who", [count()], where="x / y > 0.5 and word in ['a', 'b']", erase="flag")
    found = again(view)
    assert_same(found, view)
    assert (found.where, found.condition) == (view.where, view.condition)
    assert (found.erase, found.erasure) == (view.erase, view.erasure)


def test_an_event_comes_back() -> None:
    """Types, null or not, and all that is not the default."""
    event = Event(
        "shop.paid",
        {"shop": str, "at": str, "n": int | None, "ok": bool, "x": float},
        "at",
        id="shop",
        topic="t",
        partitions=7,
        future="2h",
        extra="refuse",
    )
    found = read_event(msgspec.json.decode(msgspec.json.encode(write_event(event)), type=WrittenEvent))
    for name in ("name", "fields", "time", "id", "topic", "partitions", "future", "extra"):
        assert getattr(found, name) == getattr(event, name), name
    assert write_event(read_event(write_event(EVENT))) == write_event(EVENT)


def test_descriptions_come_back() -> None:
    """Those of an event, a view, its entity and a model, which clients of serving read."""
    paid = Event("paid", {"shop": str, "at": int, "late": bool}, "at", description="A payment")
    view = FeatureView("shops", paid, Entity("shop", description="Where"), [count()], windows=["1h"], description="Payments by shop")
    model = Model("m", paid, "at", "shop", [view], Outcome(paid, "late", "shop"), list, description="Who pays late")
    found = again(view)
    assert (found.source.description, found.description, found.key.description) == ("A payment", "Payments by shop", "Where")
    written = msgspec.json.decode(msgspec.json.encode(write_model(model)), type=WrittenModel)
    assert read_model(written, {"paid": paid}, {"shops": view}).description == "Who pays late"


@given(st.none() | st.sampled_from([0, 1, 1.0]))
def test_an_outcome_comes_back(absent: float | None) -> None:
    """With what the absence of an event means, which an audit of old predictions needs."""
    paid = Event("paid", {"shop": str, "at": int, "late": bool}, "at")
    model = Model("m", paid, "at", "shop", [Request("shop", str)], Outcome(paid, "late", "shop", within="3d", absent=absent), list)
    written = msgspec.json.decode(msgspec.json.encode(write_model(model)), type=WrittenModel)
    found = read_model(written, {"paid": paid}, {})
    assert found.outcome.wait == model.outcome.wait
    assert write_model(found) == write_model(model)


def test_reading_checks_as_declaring_does() -> None:
    """Data that no declaration could have made are refused."""
    written = msgspec.structs.replace(write_view(view_of(FEATURES[:1])), windows=("7 parsecs",))
    with pytest.raises(DeclarationError, match="7 parsecs"):
        read_view(written, EVENT)
