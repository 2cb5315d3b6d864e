"""Plans about events whose publishers do not write them plainly."""

from __future__ import annotations

import pytest
from tests.catalogue.test_plan import FIELDS, applied, planned, project, taxis, trips

from tidemill import Event, Field, count, mean
from tidemill.catalogue.definitions import NOTHING
from tidemill.catalogue.plan import Surroundings
from tidemill.errors import DeclarationError


def test_forms_of_fields_are_held() -> None:
    """Also of a field that only an older version reads. A field with a default need not be null in earlier events, and is strict later."""
    toll = Field(float, path=["fare", "toll"], default=0.0, lenient=True)
    before = applied(planned(NOTHING, project(taxis(trips(toll=toll), [mean("toll")])), 5))
    plan = planned(
        before, project(taxis(trips(stops=Field(int, default=0)), [count()])), 6, Surroundings({"trip"}, {}, {"trip": {"stops"}})
    )
    event = applied(plan).events[0]
    assert (event.fields["toll"], event.fields["stops"], event.strict) == ("float | None", "int", {"stops": 60_006})
    assert event.forms["toll"] == before.events[0].forms["toll"]
    assert plan.changes[0].details == ("fields: toll: float -> float | None", "fields: with stops (int)", "forms: with stops (default=0)")


def test_another_name_for_what_an_older_version_reads() -> None:
    """Two fields cannot lie in one place, so it is told with both ways out."""
    before = applied(planned(NOTHING, project(taxis(trips(), [mean("miles")])), 5))
    fewer = {name: kind for name, kind in FIELDS.items() if name != "miles"}
    with pytest.raises(DeclarationError, match="have one path, and view 'taxis' reads the field of the other name") as caught:
        planned(before, project(taxis(Event("trip", fewer | {"far": Field(float, path="miles")}, "at"), [mean("far")])), 6)
    assert "prune" in caught.value.mend
