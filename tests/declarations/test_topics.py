"""Names and places: topics, partitions and keys of the online store."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count, topics
from tidemill.names import log_name, parse_log
from tidemill.project import Project

SOLD = Event("sold", {"at": int, "shop": str}, time="at", topic="shop-floor", partitions=7)
SHOPS = FeatureView("shops", SOLD, "shop", [count()], partitions=3)
PROJECT = Project("corner", {"sold": SOLD}, {"shops": SHOPS})


def test_every_topic_of_a_project() -> None:
    """The application's topics by their own names, one per view, and the eight that every project has."""
    specs = topics.topic_specs(PROJECT)
    assert {name: spec.partitions for name, spec in specs.items()} == {
        "shop-floor": 7, "corner.view.shops.p3": 3, "corner.requests": 4, "corner.outcomes": 4, "corner.predictions": 4,
        "corner.results": 1, "corner.alerts": 1, "corner.deployments": 1, "corner.logs": 1,
        "corner.dead-letters": 1,
    }  # fmt: skip


def test_another_partition_count_is_another_log() -> None:
    """Nothing of a view under one count has the name of anything under another."""
    wider = replace(SHOPS, partitions=30)
    assert (SHOPS.log, wider.log) == ("shops.p3", "shops.p30")
    assert topics.view_topic("corner", wider.log) == "corner.view.shops.p30"
    assert topics.view_folder(wider.log) == "views/shops.p30"
    assert topics.fence_key("corner", wider.log, 2) != topics.fence_key("corner", SHOPS.log, 2)
    assert topics.state_key("corner", wider.log, 2, b"x").endswith(b"}x")


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


def test_the_log_is_kept() -> None:
    """Nothing that is needed to prove a value expires or is compacted; only the application's own topics do."""
    for name, spec in topics.topic_specs(PROJECT).items():
        assert spec.config["cleanup.policy"] == "delete"
        assert spec.config["retention.ms"] == ("604800000" if name == "shop-floor" else "-1")
        assert int(spec.config["max.message.bytes"]) > topics.MESSAGE_BYTES


@given(st.binary(), st.integers(1, 64))
def test_a_partition_is_a_pure_function_of_the_key(key: bytes, partitions: int) -> None:
    """CRC-32 modulo the partitions, always within them."""
    assert topics.partition_of(key, partitions) == zlib.crc32(key) % partitions < partitions


@pytest.mark.parametrize(
    ("value", "key"), [("JFK", b"JFK"), ("ü", "ü".encode()), ("", b""), (7, b"7"), (-7, b"-7"), (2**70, b"%d" % 2**70)]
)
def test_an_entity_is_text_or_a_whole_number(value: object, key: bytes) -> None:
    """Text as it is, numbers in decimal."""
    assert topics.entity_key(value) == key


@pytest.mark.parametrize("value", [None, True, 1.5, b"JFK", ["JFK"]])
def test_nothing_else_is_an_entity(value: object) -> None:
    """The message shows what came."""
    with pytest.raises(TypeError, match="is not an entity: give text or a whole number"):
        topics.entity_key(value)


@given(st.integers(0, 99), st.binary(max_size=20), st.binary(max_size=20))
def test_keys_of_a_partition_share_a_slot_and_no_name(partition: int, one: bytes, two: bytes) -> None:
    """Fence and entities have one hash tag; no two of them can be confused, whatever bytes an entity has."""
    fence = topics.fence_key("corner", SHOPS.log, partition)
    keys = [topics.state_key("corner", SHOPS.log, partition, entity) for entity in (one, two)]
    tag = topics.hash_tag("corner", SHOPS.log, partition)
    assert all(key.count(b"{") >= 1 and tag in key for key in (fence, *keys))
    assert fence not in keys
    assert (keys[0] == keys[1]) == (one == two)
