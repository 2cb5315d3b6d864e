"""Plans: what a project would change in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, Model, Outcome, Request, count, last, mean, sum
from tidemill.catalogue.definitions import NOTHING, Definitions, newest_of, project_of
from tidemill.catalogue.plan import CataloguePlan, Surroundings, differences, plan_of, unapplied
from tidemill.declarations.aggregations import Aggregation
from tidemill.declarations.project import Project
from tidemill.declarations.written import WrittenFeature, WrittenInput, WrittenModel, WrittenOutcome
from tidemill.errors import DeclarationError
from tidemill.kernel.view import ViewKernel
from tidemill.routing.router import Router

FIELDS = {"taxi": str, "at": int, "miles": float, "tip": float | None}
ROUTED = Surroundings(routed={"trip", "paid"})


def trips(**fields: Any) -> Event:
    """The event of the tests."""
    return Event("trip", FIELDS | fields, "at", earliest="1970-01-01")


def taxis(event: Event, features: Sequence[Aggregation], **options: Any) -> FeatureView:
    """A view of it."""
    return FeatureView("taxis", event, "taxi", features, **{"windows": ["1h"]} | options)


def project(*views: FeatureView, events: Sequence[Event] = (), models: Sequence[Model] = ()) -> Project:
    """A project of these declarations."""
    found = {event.name: event for event in (*events, *(view.source for view in views))}
    return Project("town", found, {view.name: view for view in views}, {model.name: model for model in models})


def applied(plan: CataloguePlan) -> Definitions:
    """The catalogue once the versions of a plan are filled and put in force."""
    after = plan.first
    for found in plan.fills:
        after = after.handed_over(found.view.name, found.version, {0: 7}, 6)
    return msgspec.json.decode(msgspec.json.encode(plan.finished(after, 7)), type=Definitions)


def planned(before: Definitions, wanted: Project, time_ms: int, around: Surroundings = ROUTED) -> CataloguePlan:
    """The plan where the events were routed before."""
    return plan_of(before, wanted, time_ms, around)


def shown(plan: CataloguePlan) -> list[tuple[str, str, str]]:
    """The changes in short."""
    return [(change.kind, change.what, change.name) for change in plan.changes]


def test_a_first_project_is_new() -> None:
    """Everything is new, and every view is filled as version 1, whose log has the name it always had."""
    plan = planned(NOTHING, project(taxis(trips(), [count()])), 5)
    assert shown(plan) == [("new", "event", "trip"), ("new", "view", "taxis")]
    assert [(found.log, found.version) for found in plan.fills] == [("taxis.p4", 1)]
    assert (plan.first.number, plan.first.time, plan.first.in_force) == (1, 5, {})
    assert applied(plan).in_force == {"taxis": 1}


def test_what_is_in_force_changes_nothing() -> None:
    """Without a change there is no plan and no new record."""
    wanted = project(taxis(trips(), [count()]))
    before = applied(planned(NOTHING, wanted, 5))
    plan = planned(before, wanted, 6)
    assert (plan.changes, plan.fills, plan.waits) == ([], [], [])
    assert plan.first is before is plan.finished(before, 6)


def test_what_the_file_says_otherwise() -> None:
    """Without looking at anything else: nothing before the first record, then whatever a plan would change."""
    first, other = project(taxis(trips(), [count()])), project(taxis(trips(), [count()], description="All taxis"))
    assert unapplied(NOTHING, first) == []
    before = applied(planned(NOTHING, first, 5))
    assert unapplied(before, first) == []
    assert [(change.name, change.details[0]) for change in unapplied(before, other)] == [("taxis", "description:  -> All taxis")]
    refused = applied(planned(NOTHING, project(taxis(trips(), [last("miles")])), 5))
    with pytest.raises(DeclarationError, match="was float and is int now"):
        unapplied(refused, project(taxis(trips(miles=int), [last("miles")])))


def test_changes_are_told_as_they_are_declared() -> None:
    """Features in the words of the declaration, inputs of a model one by one, an outcome field by field."""
    old = WrittenFeature("last_k", "miles", ("1h",), None, {"n": 3})
    assert (str(old), str(WrittenFeature("count", name="trips"))) == ("last_k(\"miles\", windows=['1h'], n=3)", "count(name='trips')")
    inputs = (WrittenInput("taxis", ("count_1h",)), WrittenInput(request="miles", type="float"))
    model = WrittenModel("m", "trip", "at", "trip", inputs, WrittenOutcome("trip", "miles > 3", "trip", "1h"))
    more = msgspec.structs.replace(
        model, inputs=(WrittenInput("taxis", ("count_1h", "sum_1h")), WrittenInput(request="zone", type="str")),
        outcome=msgspec.structs.replace(model.outcome, within="2h"),
    )  # fmt: skip
    assert list(differences(model, more)) == [
        "inputs: without miles of the request, float",
        "inputs: with taxis:sum_1h",
        "inputs: with zone of the request, str",
        "outcome.within: 1h -> 2h",
    ]


def test_another_feature_over_a_new_column_is_another_version() -> None:
    """Both versions are there; the plain name means the old one until the new one is filled; the change is told line by line."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    plan = planned(before, project(taxis(trips(), [count(), mean("miles")])), 6)
    (change,) = plan.changes
    assert (change.kind, change.name, change.version) == ("changed", "taxis", 2)
    assert change.details == ('features: with mean("miles")',)
    assert project_of(plan.first, "town").views.keys() == {"taxis", "taxis@v2"}
    after = project_of(applied(plan), "town")
    assert after.views.keys() == {"taxis", "taxis@v1"}
    assert [feature.name for feature in after.views["taxis"].served] == ["count_1h", "mean_miles_1h"]
    assert (after.views["taxis"].log, after.views["taxis@v1"].log) == ("taxis.v2.p4", "taxis.p4")


def test_what_only_serves_otherwise_is_filled_by_nobody() -> None:
    """Another ttl, and a feature over slots that are there, take effect at once, in the same log."""
    before = applied(planned(NOTHING, project(taxis(trips(), [mean("miles")])), 5))
    plan = planned(before, project(taxis(trips(), [mean("miles"), sum("miles")], ttl="2h")), 6)
    assert plan.fills == []
    assert plan.changes[0].details[-1] == "served from the tiles that are there"
    assert project_of(plan.first, "town").views["taxis"].ttl == "2h"


def test_another_number_of_partitions_is_another_version() -> None:
    """Entities get other places, so the log is filled anew."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    plan = planned(before, project(taxis(trips(), [count()], partitions=8)), 6)
    assert [found.log for found in plan.fills] == ["taxis.v2.p8"]
    assert plan.changes[0].details == ("partitions: 4 -> 8",)


def test_a_view_that_is_gone_keeps_its_values() -> None:
    """It has no plain name any more; its version stays, and comes back in force when it is declared again."""
    whole = project(taxis(trips(), [count()]))
    before = applied(planned(NOTHING, whole, 5))
    plan = planned(before, project(events=[trips()]), 6)
    assert shown(plan) == [("gone", "view", "taxis")]
    assert project_of(plan.first, "town").views.keys() == {"taxis@v1"}
    again = planned(plan.first, whole, 7)
    assert again.fills == []
    assert again.waits == [("taxis", 1)]
    assert again.finished(again.first, 8).in_force == {"taxis": 1}


def test_a_fill_that_was_broken_off_is_given_up() -> None:
    """Another number, so another log, takes its place, and so again; its number never comes back, also when nothing is left of it."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    wanted = project(taxis(trips(), [count(), last("tip")]))
    begun = planned(before, wanted, 6).first
    again = planned(begun, wanted, 7)
    assert [found.version for found in again.fills] == [3]
    assert again.changes[0].details[-1] == "version 2, of which the filling was broken off, is given up"
    assert [found.version for found in again.first.views] == [1, 3]
    back = planned(again.first, project(taxis(trips(), [count()])), 8)
    assert (shown(back), back.fills) == ([("changed", "view", "taxis")], [])
    assert [found.version for found in planned(applied(back), wanted, 9).fills] == [4]
    assert shown(planned(begun, project(events=[trips()]), 7)) == [("gone", "view", "taxis"), ("gone", "view", "taxis")]


def test_after_the_hand_over_nothing_is_filled_again() -> None:
    """A version that was handed over, and not put in force yet, is only waited for."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    wanted = project(taxis(trips(), [count(), last("tip")]))
    handed = planned(before, wanted, 6).first.handed_over("taxis", 2, {0: 9}, 7)
    plan = planned(handed, wanted, 8)
    assert (plan.fills, plan.waits) == ([], [("taxis", 2)])
    assert plan.first.in_force == {"taxis": 1}
    assert plan.finished(plan.first, 9).in_force == {"taxis": 2}


def test_an_old_definition_comes_back_with_its_values() -> None:
    """Its version was folded all the time: nothing is filled."""
    one, two = project(taxis(trips(), [count()])), project(taxis(trips(), [count(), last("tip")]))
    now = applied(planned(applied(planned(NOTHING, one, 5)), two, 6))
    plan = planned(now, one, 7)
    assert (plan.fills, plan.waits) == ([], [("taxis", 1)])
    assert applied(plan).in_force == {"taxis": 1}


def test_the_log_that_a_view_has_is_taken_over() -> None:
    """Without a catalogue before: a log with records is version 1, and nothing is routed to it again; an empty one is not used, since
    ingestion may write to it; of an event that nobody routed, everything is routed."""
    view = taxis(trips(), [count()])
    held = planned(NOTHING, project(view), 5, Surroundings({"trip"}, {view.log: True}))
    assert (held.fills, held.first.in_force, held.first.views[0].handover, held.first.views[0].handed) == ([], {"taxis": 1}, {}, 0)
    assert held.first.routed_from("trip", 0, 100, 0) == 100
    empty = planned(NOTHING, project(view), 5, Surroundings({"trip"}, {view.log: False}))
    assert [found.log for found in empty.fills] == ["taxis.v2.p4"]
    fresh = planned(NOTHING, project(view), 5, Surroundings(logs={view.log: False}))
    assert (fresh.fills, fresh.first.in_force) == ([], {"taxis": 1})
    assert fresh.first.routed_from("trip", 0, 100, 0) == 0


def test_what_is_in_force_goes_on_while_versions_are_filled() -> None:
    """Until the last record the models are the old ones, which need not fit the new views, and the old views have their fields."""
    event = trips()
    paid = Event("paid", {"taxi": str, "at": int, "tip": float}, "at")

    def with_model(view: FeatureView, feature: str) -> Project:
        model = Model("tips", view.source, "at", "taxi", [view.select(feature)], Outcome(paid, "tip > 1", "taxi"), list)
        return project(view, events=[paid], models=[model])

    before = applied(planned(NOTHING, with_model(taxis(event, [mean("miles")]), "mean_miles_1h"), 5))
    other = Event("trip", {"taxi": str, "at": int, "tip": float | None, "toll": float}, "at")
    plan = planned(before, with_model(taxis(other, [mean("toll")]), "mean_toll_1h"), 6)
    meanwhile, after = project_of(plan.first, "town"), project_of(applied(plan), "town")
    assert meanwhile.models["tips"].input_names == ["taxis__mean_miles_1h"]
    assert meanwhile.views["taxis@v2"].source.fields["toll"] == float | None
    assert after.models["tips"].input_names == ["taxis__mean_toll_1h"]
    assert after.views["taxis@v1"].source.fields["miles"] == float | None


def test_a_field_that_archived_events_lack_may_be_null() -> None:
    """A field that is declared later is null in earlier events, whatever is declared; so it stays, and planning again changes nothing."""
    wanted = project(taxis(trips(toll=float), [mean("toll")]))
    now = applied(planned(NOTHING, wanted, 5, Surroundings({"trip"}, {}, {"trip": {"toll", "at"}})))
    assert {name: now.events[0].fields[name] for name in ("toll", "at", "miles")} == {"toll": "float | None", "at": "int", "miles": "float"}
    assert planned(now, wanted, 6).changes == []
    more = planned(now, project(taxis(trips(toll=float, wait=int), [mean("toll")])), 6)
    assert more.changes[0].details == ("fields: with wait (int | None)",)


def test_features_of_a_field_that_earlier_events_lack() -> None:
    """Only they have no value in a window that begins earlier: from the first event on that has the field, or from the change on."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    features = [count(), mean("miles"), mean("toll"), count("toll > 1 and wait > 2", name="long")]
    begun = Surroundings({"trip"}, {}, {}, {"trip": {"toll": 700, "wait": None, "tip": 3}})
    now = applied(planned(before, project(taxis(trips(toll=float, wait=int), features)), 900, begun))
    assert now.since == {"trip": {"toll": 700, "wait": 900}}
    view = project_of(now, "town").views["taxis"]
    assert [view.since_ms(feature) for feature in view.served] == [0, 0, 700, 900]
    keyed = project(FeatureView("waits", trips(toll=float, wait=int), "wait", [count()]), taxis(trips(toll=float, wait=int), features))
    later = applied(planned(now, keyed, 950, begun))
    assert later.since == now.since
    assert project_of(later, "town").views["waits"].since_ms(later_view := project_of(later, "town").views["waits"].served[0]) == 900
    assert later_view.name == "count"


def test_history_that_was_loaded_later_is_a_change() -> None:
    """A version whose fill lacked a file gives way to another one with the same definition; then nothing is left to do."""
    wanted = project(taxis(trips(), [count()]))
    before = applied(planned(NOTHING, wanted, 5, Surroundings({"trip"}, loads={"trip": {"b", "a"}})))
    assert (before.loads, before.views[0].loaded) == ({"trip": ("a", "b")}, 2)
    assert planned(before, wanted, 6, Surroundings({"trip"}, loads={"trip": {"a"}})).changes == []
    more = Surroundings({"trip"}, loads={"trip": {"a", "b", "0", "c"}})
    plan = planned(before, wanted, 6, more)
    assert [(found.version, found.view) for found in plan.fills] == [(2, before.views[0].view)]
    assert plan.changes[0].details == ("history was loaded from 2 files since version 1 was filled",)
    assert unapplied(plan.first, wanted)
    now = applied(plan)
    assert (now.loads["trip"], now.in_force, [found.loaded for found in now.views]) == (("a", "b", "0", "c"), {"taxis": 2}, [2, 4])
    assert planned(now, wanted, 7, more).changes == []
    meanwhile = plan.first.handed_over("taxis", 2, {}, 6, {"a", "c", "later"})
    assert (meanwhile.loads["trip"][-1], meanwhile.version("taxis", 2).loaded) == ("later", 5)


def test_a_log_from_before_the_catalogue_lacks_what_was_loaded() -> None:
    """So it is not taken for version 1."""
    view = taxis(trips(), [count()])
    plan = planned(NOTHING, project(view), 5, Surroundings({"trip"}, {view.log: True}, loads={"trip": {"a"}}))
    assert [(found.version, found.handover) for found in plan.first.views] == [(2, None)]


def test_a_field_of_another_type_begins_anew() -> None:
    """Its earlier values mean something else, unless they can be read as the new type."""
    before = applied(planned(NOTHING, project(taxis(trips(toll=int), [count()])), 5))
    begun = Surroundings({"trip"}, {}, {}, {"trip": {"toll": None}})
    now = applied(planned(before, project(taxis(trips(toll=str), [count("toll")])), 900, begun))
    assert now.since == {"trip": {"toll": 900}}
    assert applied(planned(before, project(taxis(trips(toll=float), [mean("toll")])), 900)).since == {}


def test_a_field_that_an_older_version_reads_stays() -> None:
    """The event keeps it, and may lack it from now on; events without it are routed."""
    before = applied(planned(NOTHING, project(taxis(trips(), [mean("miles")])), 5))
    fewer = Event("trip", {name: kind for name, kind in FIELDS.items() if name != "miles"}, "at", earliest="1970-01-01")
    plan = planned(before, project(taxis(fewer, [count()])), 6)
    assert {change.name: change.details for change in plan.changes}["trip"] == ("fields: miles: float -> float | None",)
    after = project_of(applied(plan), "town")
    routed = Router(after).route("trip", 0, 0, 10, None, b'{"taxi":"a","at":5,"tip":null}', [])
    assert sorted(topic for topic, *_ in routed) == ["town.view.taxis.p4", "town.view.taxis.v2.p4"]


def test_a_field_that_an_older_version_reads_cannot_get_another_type() -> None:
    """It is told before anything is changed, with both ways out."""
    before = applied(planned(NOTHING, project(taxis(trips(), [mean("miles")])), 5))
    with pytest.raises(DeclarationError, match="'miles' was float and is str now, and view 'taxis' reads it") as caught:
        planned(before, project(taxis(trips(miles=str), [count()])), 6)
    assert "prune" in caught.value.mend


def test_a_model_is_held_without_its_pipeline() -> None:
    """What serves and joins needs no Python of the user's; training asks for the project."""
    event = trips()
    view, paid = taxis(event, [count(), mean("miles")]), Event("paid", {"taxi": str, "at": int, "tip": float}, "at")
    model = Model("tips", event, "at", "taxi", [view.select("count_1h"), Request("miles")], Outcome(paid, "tip > 1", "taxi"), list)
    before = applied(planned(NOTHING, project(view, events=[paid], models=[model]), 5))
    found = project_of(before, "town").models["tips"]
    assert (found.input_names, found.request_fields) == (["taxis__count_1h", "miles"], ["taxi", "miles"])
    assert found.outcome.within == "24h"
    with pytest.raises(Exception, match="no pipeline of model 'tips'"):
        found.pipeline()


def test_of_two_records_with_one_number_the_first_counts() -> None:
    """Who writes second, without having seen the first, has changed nothing."""
    first, second = Definitions(1, 5, in_force={"a": 1}), Definitions(1, 6, in_force={"b": 1})
    assert newest_of([first, second, Definitions(3, 7)]) is first
    assert newest_of([first, second, third := Definitions(2, 8)]) is third


def test_ingestion_goes_back_where_a_log_was_handed_over() -> None:
    """Only for logs of the event that were handed over since the commit; a partition that the handover does not name from its beginning."""
    now = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    assert now.number == 3
    assert [now.routed_from("trip", 0, 100, seen) for seen in (1, 2, 3)] == [7, 100, 100]
    assert [now.routed_from("trip", 0, 5, 1), now.routed_from("trip", 1, 100, 1), now.routed_from("other", 0, 100, 1)] == [5, 0, 100]
    filling = planned(now, project(taxis(trips(), [count(), last("tip")])), 6).first
    assert filling.routed_from("trip", 0, 100, 3) == 100


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "partitions": st.sampled_from([1, 4]),
        "ttl": st.sampled_from(["1h", "2h"]),
        "windows": st.sampled_from([["1h"], ["1h", "3h"]]),
    },
)
FEATURES = st.lists(st.sampled_from([count(), sum("miles"), mean("miles"), last("tip")]), min_size=1, max_size=3, unique=True)


@given(st.lists(st.none() | st.tuples(FEATURES, OPTIONS), min_size=1, max_size=6))
def test_any_way_of_changes_ends_in_what_is_declared(states: list[tuple[list[Aggregation], dict[str, Any]] | None]) -> None:
    """After each change the plain name serves what the project declares; what was stored keeps its meaning under the name of its version."""
    now, stored = NOTHING, dict[str, str]()
    for state in states:
        wanted = project(events=[trips()]) if state is None else project(taxis(trips(), state[0], **state[1]))
        now = applied(planned(now, wanted, 5))
        assert planned(now, wanted, 6).changes == []
        found = project_of(now, "town")
        assert {name for name in found.views if "@" not in name} == wanted.views.keys()
        for name, view in wanted.views.items():
            assert found.views[name].served == view.served
            assert ViewKernel(found.views[name]).definition == ViewKernel(view).definition
        logs = {str(view.log): ViewKernel(view).definition for view in found.views.values()}
        assert len(logs) == len(found.views)
        assert stored.items() <= logs.items()
        stored = logs


def test_a_log_gets_nothing_from_before_its_hand_over() -> None:
    """Ingestion that goes back for one log routes to no other log what that was filled with; to a log that is being filled, nothing. Whatever is
    routed, the whole project decides which events are refused."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 5))
    filling = planned(before, project(taxis(trips(), [count(), last("tip")])), 6)
    handed = filling.first.handed_over("taxis", 2, {0: 30}, 7)
    both = planned(filling.finished(handed, 8), project(taxis(trips(), [count(), last("miles")])), 9).first
    router = Router(project_of(both, "town"), both.begins)

    def topics(partition: int, offset: int, taxi: str = "a") -> list[str]:
        value = b'{"taxi":"%s","at":5,"miles":1.0,"tip":null}' % taxi.encode()
        return sorted(topic for topic, *_ in router.route("trip", partition, offset, 10, None, value, []))

    old, new = "town.view.taxis.p4", "town.view.taxis.v2.p4"
    assert [topics(0, 6), topics(0, 7), topics(0, 29), topics(0, 30), topics(1, 0)] == [[], [old], [old], [new, old][::-1], [old, new]]
    assert topics(0, 6, "") == ["town.dead-letters"]


def test_a_field_is_strict_a_minute_after_it_was_declared() -> None:
    """Or declared with another type; then it may be null too. A new event is strict at once, and what is known stays so."""
    before = applied(planned(NOTHING, project(taxis(trips(), [count()])), 1_000))
    assert before.events[0].strict == {}
    plan = planned(before, project(taxis(trips(seats=int, miles=str), [count()])), 5_000)
    assert plan.changes[0].details == ("fields: miles: float -> str | None", "fields: with seats (int | None)")
    assert plan.first.events[0].strict == plan.last.events[0].strict == {"miles": 65_000, "seats": 65_000}
    after = applied(plan)
    assert unapplied(after, project(taxis(trips(seats=int, miles=str), [count()]))) == []
    assert planned(after, project(taxis(trips(seats=int), [count()])), 9_000).last.events[0].strict == {"miles": 69_000, "seats": 65_000}
    assert project_of(after, "town").events["trip"].strict == {"miles": 65_000, "seats": 65_000}
