"""The book of a partition: what it says of the whole without folding it, and the histories of entities alone."""

from __future__ import annotations

import msgspec
import pytest
from tests.demo_state import demo
from tests.proof.conftest import ZONES
from tests.proof.world import World

from tidemill.errors import OfflineUnavailable
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore, Snapshot
from tidemill.proof import book as module
from tidemill.proof.book import PartitionBook, snapshot_reaching
from tidemill.streams.topics import view_topic

KERNEL = ViewKernel(ZONES)


def snapshot_of(world: World) -> Snapshot:
    """The newest rows of the zones."""
    return world.store.snapshot(view_folder(ZONES.log))


def end_of(world: World, partition: int) -> int:
    """The end of a partition's log."""
    return len(world.logs[view_topic(world.project.name, ZONES.log), partition])


@pytest.mark.parametrize("slice_rows", [7, 1_000])
def test_it_says_what_a_fold_says(world: World, monkeypatch: pytest.MonkeyPatch, slice_rows: int) -> None:
    """Position, proof, source positions, records sent twice and poison are those of the fold, however it is cut and wherever it stops."""
    monkeypatch.setattr(module, "SLICE_ROWS", slice_rows)
    breaths = list[int]()
    for partition in range(ZONES.partitions):
        book = PartitionBook(ZONES, partition)
        for end in (10, 11, end_of(world, partition)):
            book.advance(snapshot_of(world), end, lambda: breaths.append(1))
            fence = world.fold(ZONES, partition, end)[0].fence
            assert book.differing(fence) == ""
            assert fence.resent == len(book.resent)
            assert sum(book.rows_of.values()) == end
        assert fence.resent
        assert fence.poison
    assert len(breaths) >= 3 * ZONES.partitions


def test_a_fence_that_says_otherwise(world: World) -> None:
    """What differs is named with both sides."""
    book, end = PartitionBook(ZONES, 0), end_of(world, 0)
    book.advance(snapshot_of(world), end)
    fence = world.fold(ZONES, 0)[0].fence
    assert book.differing(msgspec.structs.replace(fence, resent=0)) == f"resent is 0, the rows give {fence.resent}"
    assert "proof is 1, the rows give" in book.differing(msgspec.structs.replace(fence, proof=1))
    assert "sources is {0: 1}" in book.differing(msgspec.structs.replace(fence, sources={0: 1}))


def test_it_begins_anew_when_the_store_fell_back(world: World) -> None:
    """An end before the rows already read is answered from the beginning."""
    book = PartitionBook(ZONES, 0)
    book.advance(snapshot_of(world), end_of(world, 0))
    book.advance(snapshot_of(world), 20)
    assert book.differing(world.fold(ZONES, 0, 20)[0].fence) == ""
    assert sum(book.rows_of.values()) == 20


def test_an_entity_alone(world: World) -> None:
    """Folding the rows of some entities without those sent twice gives the very states of the whole fold."""
    for partition in range(ZONES.partitions):
        book, end = PartitionBook(ZONES, partition), end_of(world, partition) - 5
        book.advance(snapshot_of(world), end)
        _, whole = world.fold(ZONES, partition, end)
        some = [key.decode() for key in list(whole)[::3]]
        entries = book.entries(snapshot_of(world), some, end)
        states = dict[bytes, EntityState]()
        PartitionFold.start(KERNEL).advance(entries, states)
        assert {key: KERNEL.encode(state) for key, state in states.items()} == {
            key.encode(): KERNEL.encode(whole[key.encode()]) for key in some
        }


@pytest.mark.parametrize("most_rows", [1, 30, 10_000])
def test_every_entity_has_its_turn(world: World, most_rows: int) -> None:
    """Draws go round in order of names, have at least one entity and at most so many rows, and meet everybody before anybody comes twice."""
    book = PartitionBook(ZONES, 1)
    book.advance(snapshot_of(world), end_of(world, 1))
    seen: list[str] = []
    after = ""
    while len(seen) < len(book.rows_of):
        drawn = book.draw(after, most_rows)
        assert len(drawn) == 1 or sum(book.rows_of[name] for name in drawn) <= most_rows
        seen += drawn
        after = drawn[-1]
    assert set(seen) == set(book.rows_of)
    assert len(set(seen[: len(book.rows_of)])) == len(book.rows_of)
    assert PartitionBook(ZONES, 1).draw("", 10) == []


def test_rows_that_do_not_come(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No table and no need for one is no error; rows that are needed and missing are named."""
    empty = OfflineStore(tmp_path_factory.mktemp("none"))
    assert snapshot_reaching(empty, ZONES, 0, 0, 0) is None
    with pytest.raises(OfflineUnavailable, match="'zones', partition 0: the offline store ends at 0, the online fence is 5"):
        snapshot_reaching(empty, ZONES, 0, 5, 0)
    with pytest.raises(OfflineUnavailable, match="the online fence is 999999"):
        snapshot_reaching(world.store, demo().views["zones"], 0, 999_999, 0.3)
