"""A changed definition in a world: what `tidemill apply` does, in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.demo_state import NOW_MS, demo
from tests.training.town import happened

import tidemill as tm
from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.project import Project
from tidemill.errors import DeclarationError, UnknownModel, UnknownView
from tidemill.testing import World

MINUTE = 60_000
FIELDS: dict[str, Any] = {"at": int, "shop": str, "price": float}


def declared(*features: Aggregation, fields: dict[str, Any] = FIELDS, **arguments: Any) -> Project:
    """A shop's sales."""
    sold = Event("sold", fields, time="at", partitions=2)
    view = FeatureView("shops", sold, "shop", features, **{"windows": ["1h"], "tile": "5m", **arguments})
    return Project("corner", {"sold": sold}, {"shops": view})


def sell(world: World, minute: int, price: float, **more: Any) -> None:
    """A sale, known at a minute."""
    world.publish("sold", {"at": NOW_MS + minute * MINUTE, "shop": "north", "price": price, **more})


def values(world: World, view: str, minute: int | None = None) -> dict[str, Any]:
    """The values of the shop, or why there is none."""
    found = world.features(view, "north", at=None if minute is None else NOW_MS + minute * MINUTE)
    return {name: item.value if item.status == "PRESENT" else item.status for name, item in found.items()}


def test_a_new_version_has_all_events_and_the_old_one_goes_on() -> None:
    """Those from before the change and those that come after it, late ones included."""
    world = World(declared(tm.count()))
    sell(world, 0, 3.0)
    sell(world, 1, 5.0)
    (change,) = world.apply(declared(tm.count(), tm.max("price")))
    assert (change.kind, change.what, change.name, change.version) == ("changed", "view", "shops", 2)
    assert values(world, "shops") == values(world, "shops@v2") == values(world, "shops@latest") == {"count_1h": 2, "max_price_1h": 5.0}
    assert values(world, "shops@v1") == {"count_1h": 2}
    sell(world, 0, 7.0)
    assert (values(world, "shops"), values(world, "shops@v1")) == ({"count_1h": 3, "max_price_1h": 7.0}, {"count_1h": 3})
    with pytest.raises(UnknownView):
        values(world, "shops@v3")


def test_nothing_to_change() -> None:
    """The same declarations again; a description alone makes no version."""
    world = World(declared(tm.count()))
    assert world.apply(declared(tm.count())) == []
    sell(world, 0, 3.0)
    assert world.apply(declared(tm.count())) == []
    (change,) = world.apply(declared(tm.count(), ttl="5m"))
    assert (change.version, change.details) == (None, ("ttl: None -> 5m", "served from the tiles that are there"))
    assert values(world, "shops", 6) == {"count_1h": "OUTSIDE_MAX_AGE"}


def test_a_field_that_events_carried_before_it_was_declared() -> None:
    """Its values are all there."""
    world = World(declared(tm.count()))
    sell(world, 0, 3.0, tip=1.5)
    world.apply(declared(tm.sum("tip"), fields={**FIELDS, "tip": float | None}))
    sell(world, 1, 3.0, tip=0.5)
    assert values(world, "shops") == {"sum_tip_1h": 2.0}


def test_a_field_that_no_event_had() -> None:
    """Its sums are not those of a window that began before the change."""
    world = World(declared(tm.count()))
    sell(world, 0, 3.0)
    world.apply(declared(tm.sum("tip"), fields={**FIELDS, "tip": float | None}))
    sell(world, 1, 3.0, tip=0.5)
    assert values(world, "shops") == {"sum_tip_1h": "INVALID"}
    sell(world, 70, 3.0, tip=0.25)
    assert values(world, "shops") == {"sum_tip_1h": 0.25}


def test_what_was_archived_stays_although_it_would_be_refused_now() -> None:
    """An event that carried a text where a number is declared later counts without it."""
    world = World(declared(tm.count()))
    sell(world, 0, 3.0, tip=2)
    sell(world, 1, 3.0, tip="much")
    world.apply(declared(tm.count(), tm.sum("tip"), fields={**FIELDS, "tip": float | None}))
    assert values(world, "shops") == {"count_1h": 2, "sum_tip_1h": 2.0}


def test_a_view_that_is_gone_and_comes_back() -> None:
    """Its values go on meanwhile, under its version."""
    world, other = World(declared(tm.count())), declared(tm.count())
    sell(world, 0, 3.0)
    world.apply(replace(other, views={}))
    sell(world, 1, 3.0)
    assert values(world, "shops@v1") == {"count_1h": 2}
    with pytest.raises(UnknownView):
        values(world, "shops")
    (change,) = world.apply(declared(tm.count()))
    assert change.details == ("version 1 has its values already",)
    assert values(world, "shops") == {"count_1h": 2}


def test_a_change_that_is_refused_changes_nothing() -> None:
    """The error is that of `tidemill apply`."""
    world = World(declared(tm.sum("price")))
    sell(world, 0, 3.0)
    with pytest.raises(DeclarationError, match="field 'price' was float and is int now"):
        world.apply(declared(tm.sum("price"), fields={**FIELDS, "price": int}))
    sell(world, 1, 0.5)
    assert values(world, "shops") == {"sum_price_1h": 3.5}


def test_an_event_of_another_count_of_partitions() -> None:
    """Events go to the new partitions too, and all of them count."""
    world, more = World(declared(tm.count())), declared(tm.count(), tm.sum("price"))
    for minute in range(5):
        sell(world, minute, 1.0)
    event = replace(more.events["sold"], partitions=5)
    world.apply(Project("another name", {"sold": event}, {"shops": replace(more.views["shops"], source=event, partitions=1)}))
    for minute in range(5, 30):
        sell(world, minute, 1.0)
    assert [log.end > 0 for log in world.kafka.partitions("sold")] == [True] * 5
    assert values(world, "shops") == {"count_1h": 30, "sum_price_1h": 30.0}
    assert values(world, "shops@v1") == {"count_1h": 30}


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_a_model_goes_on_reading_what_it_was_trained_on() -> None:
    """Until it is trained again. One that is declared no more predicts no more, until it comes back."""
    world, entities, now = World(demo()), {"zone": "north", "distance": 7.0}, demo()
    for known_ms, name, data in happened(60):
        world.publish(name, data, at=known_ms)
    world.train("fare")
    before = world.predict("fare", entities)
    zones = replace(now.views["zones"], windows=["2h"])
    names = [feature.name for feature in zones.served if feature.aggregation.gives is not list]
    others = [item for item in now.models["fare"].inputs if isinstance(item, tm.Request)]
    fare = replace(now.models["fare"], inputs=[zones.select(*names), *others])
    world.apply(replace(now, views={**now.views, "zones": zones}, models={"fare": fare}))
    assert world.predict("fare", entities) == before
    world.train("fare")
    assert {name for name in world.predict("fare", entities).features if name.endswith("_2h")}
    with pytest.raises(UnknownModel):
        world.predict("big_tip", entities)
    after = world.predict("fare", entities)
    world.apply(replace(now, models={}))
    with pytest.raises(UnknownModel):
        world.predict("fare", entities)
    world.apply(now)
    assert world.predict("fare", entities) == after
