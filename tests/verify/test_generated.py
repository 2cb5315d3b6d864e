"""Whole projects, generated, run on the twins, and judged by SQL. Of 300, 120 have a model too: test_trained.py judges them. In half of them
definitions change."""

from __future__ import annotations

from hypothesis import given, settings
from tests.verify.changing import changing
from tests.verify.judging import differences
from tests.verify.projects import Generated, generated


@settings(max_examples=90)
@given(generated())
def test_every_served_value_is_what_the_documentation_says(made: Generated) -> None:
    """Value and state of every feature, at any moment, after any stream."""
    assert differences(made) == []


@settings(max_examples=90)
@given(changing())
def test_every_version_of_a_view_is_what_the_documentation_says(made: Generated) -> None:
    """Also of those that are not in force any more, after fields, features, windows, keys, partitions and views have changed."""
    assert differences(made) == []
