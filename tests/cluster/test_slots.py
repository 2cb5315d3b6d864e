"""Which slot a key has, and what a node tells of who has which: no server needed."""

import pytest
import redis.crc
from hypothesis import given
from hypothesis import strategies as st

from tidemill.names import log_name
from tidemill.online.keys import fence_key, state_key
from tidemill.redis.cluster import SLOTS, layout_of, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 12_739), (b"foo{bar}zap", 5_061), ("bar", 5_061), (b"foo{}{bar}", 8_363), (b"", 0), (b"{", slot_of(b"{"))],
)
def test_known_slots(key: bytes | str, slot: int) -> None:
    """Slots that the specification's reference gives (0x31C3 for 123456789)."""
    assert slot_of(key) == slot


@given(st.binary() | st.builds(lambda *parts: b"".join(parts), st.binary(), st.just(b"{"), st.binary(), st.just(b"}"), st.binary()))
def test_any_key_has_the_slot_another_client_gives_it(key: bytes) -> None:
    """Whatever braces are in it."""
    assert slot_of(key) == redis.crc.key_slot(key)
    assert 0 <= slot_of(key) < SLOTS


@given(partition=st.integers(0, 999), entity=st.binary())
def test_a_partition_has_one_slot(partition: int, entity: bytes) -> None:
    """Its fence and all its entities are together, so that one script and one MGET can have them."""
    log = log_name("view", 1_000)
    assert slot_of(fence_key("project", log, partition)) == slot_of(state_key("project", log, partition, entity))


def test_a_layout_is_read_from_a_reply() -> None:
    """Only primaries count; a node without a name of its own is on the host that was asked."""
    node = [b"10.0.0.2", 7001, b"id", []]
    reply = [[8_192, 16_383, node, [b"10.0.0.9", 7009, b"id", []]], [0, 100, [None, 7000, b"id"]], [101, 8_191, [b"?", 7002, b"id"]]]
    assert layout_of(reply, "seed") == [(0, 100, "seed", 7000), (101, 8_191, "seed", 7002), (8_192, 16_383, "10.0.0.2", 7001)]
    assert layout_of([], "seed") == []
