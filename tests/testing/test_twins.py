"""What the suite over twins and servers does not ask: what a twin does not know it says, and a folder takes records from the fence only."""

from __future__ import annotations

from typing import Any

import pytest
from tests.demo_state import NOW_MS, demo

from tidemill.errors import CorruptState, FenceConflict, StoreError
from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import fence_key
from tidemill.online.writer import OnlineWriter
from tidemill.records import ViewRecord, encode
from tidemill.testing.folding import Folder
from tidemill.testing.log import MemoryKafka, TopicRecord
from tidemill.testing.running import at_once
from tidemill.testing.store import MemoryRedis

VIEW = demo().views["drivers"]


def record(offset: int, **changes: Any) -> TopicRecord:
    """A record of the view's topic."""
    value = ViewRecord(NOW_MS + offset, NOW_MS + offset, (0, offset), {"fare": 2.0} | changes, f"e{offset}")
    return TopicRecord("topic", 0, offset, b"%d" % (offset % 3), encode(value), NOW_MS)


def begun(store: MemoryRedis) -> Folder:
    """A folder whose partition 0 is ready."""
    folder = Folder(VIEW, ViewKernel(VIEW), OnlineWriter(store, "p"))
    at_once(folder.begin(0))
    return folder


def test_together_or_one_by_one() -> None:
    """However records are cut into calls, the store holds the same bytes."""
    stores = [MemoryRedis() for _ in range(2)]
    together, single = (begun(store) for store in stores)
    records = [record(offset) for offset in range(9)]
    at_once(together.fold(0, records))
    for item in records:
        at_once(single.fold(0, [item]))
    assert stores[0].data == stores[1].data
    assert len(stores[0].data) == 1 + 3


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_from_the_fence_only(offset: int) -> None:
    """Records that were applied before, or that leave some out, are refused, and change nothing."""
    store = MemoryRedis()
    folder = begun(store)
    at_once(folder.fold(0, [record(offset) for offset in range(3)]))
    before = dict(store.data)
    with pytest.raises(FenceConflict):
        at_once(folder.fold(0, [record(offset)]))
    assert store.data == before


def test_a_record_that_cannot_be_read() -> None:
    """It becomes a letter with its place, and the fence passes it."""
    folder, (poison, good) = begun(MemoryRedis()), (record(0, fare="much"), record(1))
    (letter,) = at_once(folder.fold(0, [poison, good]))
    assert (letter.reason, letter.source, letter.view) == ("poison", ("topic", 0, 0), "drivers")


def test_an_entity_that_is_damaged() -> None:
    """A value that is no entity's is an error, not a new entity."""
    store = MemoryRedis()
    folder = begun(store)
    at_once(folder.fold(0, [record(0)]))
    (entity,) = set(store.data) - {fence_key("p", VIEW.log, 0)}
    store.put(entity, b"damaged")
    with pytest.raises(CorruptState):
        at_once(folder.fold(0, [record(1)._replace(key=b"0")]))


def test_what_the_store_s_twin_does_not_know() -> None:
    """Another command or script is an error that says so."""
    with pytest.raises(StoreError, match="INCR"):
        at_once(MemoryRedis().call(b"INCR", b"k"))
    with pytest.raises(StoreError, match="script"):
        at_once(MemoryRedis().script("return 1", [], []))


def test_a_topic_has_the_partitions_it_was_given() -> None:
    """Nothing is made by writing to it."""
    kafka = MemoryKafka({"t": 2})
    assert kafka.append("t", 1, b"k", b"v", 5, [("h", b"1")]) == TopicRecord("t", 1, 0, b"k", b"v", 5, [("h", b"1")])
    with pytest.raises(IndexError):
        kafka.append("t", 2, b"k", b"v")
    with pytest.raises(KeyError):
        kafka.append("u", 0, b"k", b"v")
