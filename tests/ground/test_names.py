"""Names of logs and of versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.names import log_name, parse_log, parse_version, version_name

VIEWS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)


@given(VIEWS, st.integers(1, 10_000), st.integers(1, 200))
def test_a_log_names_its_view_count_and_version(view: str, partitions: int, version: int) -> None:
    """What goes into the name comes out of it."""
    assert parse_log(log_name(view, partitions, version)) == (view, partitions, version)


def test_the_first_version_has_the_plain_name() -> None:
    """Logs from before there were versions keep their names."""
    assert log_name("shops", 4) == "shops.p4"
    assert log_name("shops", 4, 2) == "shops.v2.p4"


@given(VIEWS, st.integers(1, 200))
def test_a_version_has_a_name(view: str, version: int) -> None:
    """`view@v2` is told apart from a view's plain name."""
    assert parse_version(version_name(view, version)) == (view, version)
    assert parse_version(view) is None


@pytest.mark.parametrize(
    "name", ["", "shops", ".p4", "shops.p0", "shops.p04", "shops.p-1", "shops.p٤", "shops.px", "shops.p", "shops.p1234567890", "shops.v.p"]
)
def test_no_other_text_is_a_log(name: str) -> None:
    """Names that no log has are told apart."""
    assert parse_log(name) is None
