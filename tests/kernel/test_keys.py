"""An entity's key and its partition."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.kernel.keys import entity_key, partition_of


@given(st.binary(), st.integers(1, 64))
def test_a_partition_is_a_pure_function_of_the_key(key: bytes, partitions: int) -> None:
    """CRC-32 modulo the partitions, always within them."""
    assert partition_of(key, partitions) == zlib.crc32(key) % partitions < partitions


@pytest.mark.parametrize(
    ("value", "key"), [("JFK", b"JFK"), ("ü", "ü".encode()), ("", b""), (7, b"7"), (-7, b"-7"), (2**70, b"%d" % 2**70)]
)
def test_an_entity_is_text_or_a_whole_number(value: object, key: bytes) -> None:
    """Text as it is, numbers in decimal."""
    assert entity_key(value) == key


@pytest.mark.parametrize("value", [None, True, 1.5, b"JFK", ["JFK"]])
def test_nothing_else_is_an_entity(value: object) -> None:
    """The message shows what came."""
    with pytest.raises(TypeError, match="is not an entity: give text or a whole number"):
        entity_key(value)
