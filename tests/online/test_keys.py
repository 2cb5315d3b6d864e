"""Redis keys: fence and entities of a partition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.names import log_name
from tidemill.online.keys import fence_key, hash_tag, state_key

LOG = log_name("shops", 3)


@given(st.integers(0, 99), st.binary(max_size=20), st.binary(max_size=20))
def test_keys_of_a_partition_share_a_slot_and_no_name(partition: int, one: bytes, two: bytes) -> None:
    """Fence and entities have one hash tag; no two of them can be confused, whatever bytes an entity has."""
    fence = fence_key("corner", LOG, partition)
    keys = [state_key("corner", LOG, partition, entity) for entity in (one, two)]
    tag = hash_tag("corner", LOG, partition)
    assert all(key.count(b"{") >= 1 and tag in key for key in (fence, *keys))
    assert fence not in keys
    assert (keys[0] == keys[1]) == (one == two)
