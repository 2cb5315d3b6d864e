"""The offline store's behaviour, the same over the twin and over Delta tables on a disk: exactly once by position, and consistent reads."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from tests.offline.lake import lake, numbered, shop_value

from tidemill.errors import FenceConflict, UnknownTable
from tidemill.offline import delta
from tidemill.offline.store import OfflineStore, TopicTable
from tidemill.offline.tables import view_table
from tidemill.testing.lake import Handle, MemoryLake, MemoryTable

PROJECT = lake()
SHOPS = view_table(PROJECT, PROJECT.views["shops"])


@pytest.fixture(params=["twin", "real"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OfflineStore:
    """Return an empty offline store."""
    return MemoryLake() if request.param == "twin" else OfflineStore(tmp_path)


def opened(store: OfflineStore) -> TopicTable:
    """The table of the view `shops`, opened."""
    log = store.topic_table(SHOPS)
    log.open()
    return log


def add(log: TopicTable, *moves: tuple[int, int, int]) -> None:
    """Append records (partition, first, end), in one commit."""
    records = {partition: numbered([(b"k%d" % i, shop_value(i)) for i in range(first, end)], first) for partition, first, end in moves}
    log.append(SHOPS.rows_of(records), {(SHOPS.topic, partition): (first, end) for partition, first, end in moves})


def places(table: pa.Table) -> list[tuple[int, int]]:
    """Partition and offset of each row."""
    return list(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


def test_appended_once_by_position(store: OfflineStore) -> None:
    """Rows that do not start at the table's position are refused, those that were written before as well, and nothing is written."""
    log = opened(store)
    add(log, (0, 0, 3), (1, 0, 1))
    for moves in ([(0, 0, 3)], [(0, 2, 4)], [(0, 4, 5)], [(0, 3, 4), (1, 0, 1)]):
        with pytest.raises(FenceConflict):
            add(log, *moves)
    add(log, (0, 3, 5))
    snapshot = store.snapshot(SHOPS.name)
    assert snapshot.positions == {0: 5, 1: 1, 2: 0}
    assert places(snapshot.scan()) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]


def test_two_writers(store: OfflineStore) -> None:
    """A writer that another one overtook is refused, whatever it had read; on other partitions both go on."""
    one, two = opened(store), opened(store)
    add(one, (0, 0, 3))
    with pytest.raises(FenceConflict):
        add(two, (0, 0, 2))
    add(two, (1, 0, 2))
    add(one, (0, 3, 4))
    assert store.snapshot(SHOPS.name).positions == {0: 4, 1: 2, 2: 0}


def test_a_snapshot_is_of_one_version(store: OfflineStore) -> None:
    """What is committed after it was taken does not change what it gives."""
    with pytest.raises(UnknownTable):
        store.snapshot(SHOPS.name)
    log = opened(store)
    empty = store.snapshot(SHOPS.name)
    add(log, (0, 0, 2))
    before = store.snapshot(SHOPS.name)
    add(log, (0, 2, 9))
    assert [len(taken.scan()) for taken in (empty, before, store.snapshot(SHOPS.name))] == [0, 2, 9]
    assert [taken.positions[0] for taken in (empty, before, store.snapshot(SHOPS.name))] == [0, 2, 9]
    assert before.version < store.snapshot(SHOPS.name).version


def test_rows_are_read_as_they_were_written(store: OfflineStore) -> None:
    """Columns and filters, in order of partition and offset, and the checksum of the last row below a position."""
    log = opened(store)
    for moves in ([(2, 0, 3)], [(0, 0, 2), (2, 3, 5)]):
        add(log, *moves)
    table = store.scan(SHOPS.name, ["offset", "v_pieces", "id"], pc.field("partition") == 2)
    assert table.schema.names == ["offset", "v_pieces", "id"]
    assert table["v_pieces"].to_pylist() == table["offset"].to_pylist() == [0, 1, 2, 3, 4]
    assert store.scan(SHOPS.name).schema.names == SHOPS.schema.names
    proofs = dict(zip(places(store.scan(SHOPS.name)), store.scan(SHOPS.name)["proof"].to_pylist(), strict=True))
    assert store.snapshot(SHOPS.name).proofs_before({0: 2, 1: 0, 2: 4}) == {0: proofs[0, 1], 2: proofs[2, 3]}


def test_a_column_that_is_added(store: OfflineStore) -> None:
    """A table that is opened with one column more has nulls in the rows from before."""
    old = store.counted_table("t", pa.schema([("seq", pa.int64())]))
    old.append(pa.table({"seq": [0]}), {"n": (0, 1)})
    new = store.counted_table("t", pa.schema([("seq", pa.int64()), ("more", pa.string())]))
    new.append(pa.table({"seq": [1], "more": ["x"]}), {"n": (1, 2)})
    assert store.scan("t").to_pylist() == [{"seq": 0, "more": None}, {"seq": 1, "more": "x"}]
    assert store.snapshot("t").counter("n") == 2


def test_merging_files_changes_no_row(store: OfflineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that merges its files every other commit still has every row once."""
    monkeypatch.setattr(delta, "FILES_PER_MERGE", 2)
    log = opened(store)
    for i in range(6):
        add(log, (0, i, i + 1))
    log.compact()
    assert places(store.scan(SHOPS.name)) == [(0, i) for i in range(6)]


ROWS = pa.table({"n": [1]})


class Real:
    """A handle of a real table, with the model's calls."""

    def __init__(self, path: Path) -> None:
        self._table = DeltaTable(path)

    def commit(self, moves: dict[str, int]) -> None:
        """Append a row."""
        transactions = [Transaction(name, version) for name, version in moves.items()]
        write_deltalake(self._table, ROWS, mode="append", commit_properties=CommitProperties(app_transactions=transactions))

    def counter(self, name: str) -> int | None:
        """An app transaction as the handle knows it."""
        return self._table.transaction_version(name)


class Modelled:
    """A handle of the model."""

    def __init__(self, table: MemoryTable) -> None:
        self._handle = Handle(table)

    def commit(self, moves: dict[str, int]) -> None:
        """Append nothing."""
        self._handle.commit(None, moves)

    def counter(self, name: str) -> int | None:
        """An app transaction as the handle knows it."""
        return self._handle.transaction_version(name)


def _committed(handle: Real | Modelled, moves: dict[str, int]) -> bool:
    try:
        handle.commit(moves)
    except CommitFailedError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_the_table_is_as_delta_rs_has_it(tmp_path: Path, seed: int) -> None:
    """Two handles, fresh, stale and refreshed, commit higher, equal and lower counters: delta-rs and the model accept and refuse alike."""
    draw = random.Random(seed)
    DeltaTable.create(tmp_path, pa.schema([("n", pa.int64())]))
    table, accepted = MemoryTable(ROWS.schema), list[bool]()
    handles: list[tuple[Real, Modelled]] = [(Real(tmp_path), Modelled(table)) for _ in range(2)]
    for _ in range(25):
        who = draw.randrange(2)
        if draw.random() < 0.25:
            handles[who] = Real(tmp_path), Modelled(table)
        moves = {name: draw.randrange(4) for name in draw.sample(["a", "b", "c"], draw.randint(1, 2))}
        outcome = [_committed(handle, moves) for handle in handles[who]]
        assert outcome[0] == outcome[1]
        accepted.append(outcome[0])
        if not outcome[0]:
            handles[who] = Real(tmp_path), Modelled(table)
        for name in ("a", "b", "c"):
            assert handles[who][0].counter(name) == handles[who][1].counter(name)
    assert set(accepted) == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_appends_are_answered_alike(tmp_path: Path, seed: int) -> None:
    """Two writers each, with right and wrong positions, opened anew now and then: disk and twin accept and refuse the same."""
    draw, answers = random.Random(seed), set[bool]()
    stores = [OfflineStore(tmp_path), MemoryLake()]
    logs = [[opened(store) for _ in range(2)] for store in stores]
    for _ in range(20):
        who, partition, again = draw.randrange(2), draw.randrange(2), draw.random() < 0.2
        first = draw.choice([stores[0].snapshot(SHOPS.name).positions[partition], draw.randrange(6)])
        moves, given = (partition, first, first + draw.randint(1, 3)), list[bool]()
        for mine in logs:
            if again:
                mine[who].open()
            try:
                add(mine[who], moves)
            except FenceConflict:
                given.append(False)
            else:
                given.append(True)
        assert given[0] == given[1]
        answers.add(given[0])
        assert places(stores[0].scan(SHOPS.name)) == places(stores[1].scan(SHOPS.name))
    assert answers == {True, False}
