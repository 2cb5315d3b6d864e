"""Pieces of a sequence."""

from __future__ import annotations

from itertools import count, islice

from hypothesis import given
from hypothesis import strategies as st

from tidemill.chunks import chunks


@given(st.lists(st.integers()), st.integers(1, 10))
def test_together_they_are_the_whole(items: list[int], size: int) -> None:
    """Nothing is lost or moved, and all but the last are full."""
    found = list(chunks(items, size))
    assert [item for chunk in found for item in chunk] == items
    assert all(len(chunk) == size for chunk in found[:-1])
    assert all(found)


def test_no_more_is_read_than_asked_for() -> None:
    """An endless sequence can be cut."""
    numbers = count()
    assert list(islice(chunks(numbers, 3), 2)) == [[0, 1, 2], [3, 4, 5]]
    assert next(numbers) == 6
