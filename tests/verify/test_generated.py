"""Whole projects, generated, run on the twins, and judged by SQL. Of 300, 120 have a model too: test_trained.py judges them. In half of them
definitions change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.verify.changing import changing
from tests.verify.judging import differences, played
from tests.verify.projects import FIELDS, LATER, Generated, generated

from tidemill.archive.reading import read_events
from tidemill.declarations import Event
from tidemill.testing.offline import Offline


@pytest.mark.slow
@settings(max_examples=90)
@given(generated())
def test_every_served_value_is_what_the_documentation_says(made: Generated) -> None:
    """Value and state of every feature, at any moment, after any stream."""
    assert differences(made) == []


@pytest.mark.slow
@settings(max_examples=90)
@given(changing())
def test_every_version_of_a_view_is_what_the_documentation_says(made: Generated) -> None:
    """Also of those that are not in force any more, after fields, features, windows, keys, partitions and views have changed."""
    assert differences(made) == []


@pytest.mark.slow
@settings(max_examples=60)
@given(changing())
def test_an_archive_that_is_written_late_is_the_same(made: Generated) -> None:
    """An event that was accepted is not refused by the declarations of later, and says the same by them."""
    world, fields = played(made).world, ["shop", "number", *FIELDS, *LATER]
    told = Event("told", {"at": int, "shop": str, "number": int | None, **FIELDS, **LATER}, time="at")
    in_time, late = (read_events(offline.archived(world.project), told, fields) for offline in (world._offline, Offline(world.kafka)))
    assert late == in_time
