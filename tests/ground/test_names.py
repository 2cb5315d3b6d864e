"""Names of logs: a view and its partition count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.names import log_name, parse_log


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), st.integers(1, 10_000))
def test_a_log_names_its_view_and_count(view: str, partitions: int) -> None:
    """What goes into the name comes out of it."""
    assert parse_log(log_name(view, partitions)) == (view, partitions)


@pytest.mark.parametrize(
    "name", ["", "shops", ".p4", "shops.p0", "shops.p04", "shops.p-1", "shops.p٤", "shops.px", "shops.p", "shops.p1234567890"]
)
def test_no_other_text_is_a_log(name: str) -> None:
    """Names that no log has are told apart."""
    assert parse_log(name) is None
