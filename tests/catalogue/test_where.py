"""A view's `where` in plans: what a change of it means, and what it reads."""

from __future__ import annotations

import pytest
from tests.catalogue.test_plan import applied, planned, project, taxis, trips

from tidemill import count
from tidemill.catalogue.definitions import NOTHING, project_of
from tidemill.catalogue.plan import Surroundings
from tidemill.errors import DeclarationError
from tidemill.names import LogName


def test_another_where_is_another_version() -> None:
    """Other events feed it, so its tiles mean something else; back again, the old version has its values already."""
    views = [taxis(trips(), [count()], where=where) for where in (None, "tip > 0", None)]
    before = applied(planned(NOTHING, project(views[0]), 5))
    (found,) = planned(before, project(views[1]), 6).changes
    assert (found.details, found.version) == (("where: None -> tip > 0",), 2)
    before = applied(planned(before, project(views[1]), 6))
    assert project_of(before, "town").views["taxis"].where == "tip > 0"
    (found,) = planned(before, project(views[2]), 7).changes
    assert found.details == ("where: tip > 0 -> None", "version 1 has its values already")


@pytest.mark.parametrize(("where", "filled"), [(None, []), ("tip > 0", ["taxis.v2.p4"])])
def test_a_log_of_before_the_catalogue_is_not_adopted(where: str | None, filled: list[str]) -> None:
    """Whatever made its records took all events."""
    plan = planned(NOTHING, project(taxis(trips(), [count()], where=where)), 5, Surroundings({"trip"}, {LogName("taxis.p4"): True}))
    assert [found.log for found in plan.fills] == filled


def test_a_field_that_only_where_reads_is_kept_for_its_version() -> None:
    """It may be absent from now on; another type of it is refused."""
    before = applied(planned(NOTHING, project(taxis(trips(zone=str), [count()], where="zone == 'a'")), 5))
    after = applied(planned(before, project(taxis(trips(), [count()])), 6))
    assert after.events[0].fields["zone"] == "str | None"
    with pytest.raises(DeclarationError, match="field 'zone' was str and is int now"):
        planned(before, project(taxis(trips(zone=int), [count()])), 6)
