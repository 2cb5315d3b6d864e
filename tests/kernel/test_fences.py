"""Fences: the bytes that are compared on every write."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.checksums import proof_of
from tidemill.kernel.fences import Fence, position

NATURALS = st.integers(0, 2**63 - 1)
FENCES = st.builds(
    Fence, NATURALS, st.text(max_size=20), NATURALS, st.integers(0, 2**32 - 1), st.dictionaries(NATURALS, NATURALS, max_size=8),
    NATURALS, NATURALS, NATURALS, NATURALS, NATURALS, st.text(max_size=4),
)  # fmt: skip


@given(FENCES)
def test_a_fence_survives_storing(fence: Fence) -> None:
    """Decoding gives the fence back, and it encodes to the same bytes."""
    data = fence.encode()
    assert Fence.decode(data) == fence
    assert Fence.decode(data).encode() == data
    assert position(data) == fence.next


@given(FENCES, st.randoms())
def test_equal_fences_have_equal_bytes(fence: Fence, random: object) -> None:
    """The order in which source partitions were met does not show: the store compares bytes."""
    items = list(fence.sources.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert msgspec.structs.replace(fence, sources=dict(items)).encode() == fence.encode()


@given(FENCES, FENCES)
def test_different_fences_have_different_bytes(one: Fence, two: Fence) -> None:
    """No two fences can be taken for each other."""
    assert (one == two) == (one.encode() == two.encode())


def test_a_store_without_a_fence_is_at_the_beginning() -> None:
    """Nothing stored means that nothing was applied."""
    assert position(None) == 0


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b'{"next":"1","definition":"d","partitions":4}', b"\xff", b'{"next":1}'])
def test_what_is_not_a_fence_is_refused(data: bytes) -> None:
    """Anything else than an encoded fence raises instead of being taken for a position."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        Fence.decode(data)


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 159))
def test_a_proof_notices_a_changed_bit(key: bytes, value: bytes, bit: int) -> None:
    """A record with one bit changed in key or value has another proof; no value is as an empty one."""
    assert proof_of(key, None) == proof_of(key, b"")
    for other in (value, key):
        if bit < 8 * len(other):
            broken = bytearray(other)
            broken[bit // 8] ^= 1 << bit % 8
            changed = (key, bytes(broken)) if other is value else (bytes(broken), value)
            assert proof_of(*changed) != proof_of(key, value)
