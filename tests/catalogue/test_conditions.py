"""A view's `where` and `erase` in plans: what a change of them means, and what they read."""

from __future__ import annotations

import pytest
from tests.catalogue.test_plan import applied, planned, project, taxis, trips

from tidemill import count
from tidemill.catalogue.definitions import NOTHING, project_of
from tidemill.catalogue.plan import Surroundings
from tidemill.errors import DeclarationError
from tidemill.names import LogName


@pytest.mark.parametrize("argument", ["where", "erase"])
def test_another_condition_is_another_version(argument: str) -> None:
    """Other events feed or erase it, so its tiles mean something else; back again, the old version has its values already."""
    views = [taxis(trips(), [count()], **{argument: condition}) for condition in (None, "tip > 0", None)]
    before = applied(planned(NOTHING, project(views[0]), 5))
    (found,) = planned(before, project(views[1]), 6).changes
    assert (found.details, found.version) == ((f"{argument}: None -> tip > 0",), 2)
    before = applied(planned(before, project(views[1]), 6))
    assert getattr(project_of(before, "town").views["taxis"], argument) == "tip > 0"
    (found,) = planned(before, project(views[2]), 7).changes
    assert found.details == (f"{argument}: tip > 0 -> None", "version 1 has its values already")


@pytest.mark.parametrize(("conditions", "filled"), [({}, []), ({"where": "tip > 0"}, ["taxis.v2.p4"]), ({"erase": "tip > 0"}, [])])
def test_a_log_of_before_the_catalogue_is_not_adopted(conditions: dict[str, str], filled: list[str]) -> None:
    """Whatever made its records took all events, also those for which `where` is not true; which of them erase is told by their fields."""
    plan = planned(NOTHING, project(taxis(trips(), [count()], **conditions)), 5, Surroundings({"trip"}, {LogName("taxis.p4"): True}))
    assert [found.log for found in plan.fills] == filled


@pytest.mark.parametrize("argument", ["where", "erase"])
def test_a_field_that_only_a_condition_reads_is_kept_for_its_version(argument: str) -> None:
    """It may be absent from now on; another type of it is refused."""
    before = applied(planned(NOTHING, project(taxis(trips(zone=str), [count()], **{argument: "zone == 'a'"})), 5))
    after = applied(planned(before, project(taxis(trips(), [count()])), 6))
    assert after.events[0].fields["zone"] == "str | None"
    with pytest.raises(DeclarationError, match="field 'zone' was str and is int now"):
        planned(before, project(taxis(trips(zone=int), [count()])), 6)
