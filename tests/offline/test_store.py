"""Reading the offline store: sorted, filtered, of one version, with the positions of that version."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.offline.lake import lake, numbered, shop_value

from tidemill.errors import DoubledRows, FenceConflict, OfflineUnavailable, TornTable, UnknownTable
from tidemill.offline.store import OfflineStore, TopicTable
from tidemill.offline.tables import predictions_table, view_table
from tidemill.records import PredictionRecord, encode

PROJECT = lake()
SHOPS = view_table(PROJECT, PROJECT.views["shops"])
TOPIC = SHOPS.topic


def shops(store: OfflineStore) -> TopicTable:
    """The table of the view `shops`, opened."""
    log = store.topic_table(SHOPS)
    log.open()
    return log


def add(log: TopicTable, partition: int, first: int, end: int) -> None:
    """Append records first to end (without) of one partition."""
    records = numbered([(b"k%d" % i, shop_value(i)) for i in range(first, end)], first)
    log.append(SHOPS.rows(partition, records), {(TOPIC, partition): (first, end)})


def places(table: pa.Table) -> list[tuple[int, int]]:
    """Partition and offset of each row."""
    return list(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


def test_scan_is_sorted_and_complete(tmp_path: Path) -> None:
    """Rows come in order of partition and offset, whatever the order of commits."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    for partition, first, end in ((2, 0, 3), (0, 0, 2), (2, 3, 5), (1, 0, 1), (0, 2, 4)):
        add(log, partition, first, end)
    assert places(store.scan("views/shops.p3")) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]
    assert store.scan("views/shops.p3").schema.names == SHOPS.schema.names


_commits = st.lists(st.dictionaries(st.integers(0, 2), st.integers(1, 4), min_size=1), max_size=6)


@pytest.mark.slow
@given(_commits, st.integers(0, 2), st.integers(0, 12), st.sampled_from([None, ["offset"], ["key", "v_pieces"]]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_scan_equals_a_filtered_list(
    tmp_path_factory: pytest.TempPathFactory, commits: list[dict[int, int]], partition: int, below: int, columns: list[str] | None
) -> None:
    """A filtered scan of some columns gives what filtering a plain list gives, also after compaction."""
    store = OfflineStore(tmp_path_factory.mktemp("scan"))
    log = shops(store)
    rows: dict[int, list[dict[str, object]]] = {0: [], 1: [], 2: []}
    for commit in commits:
        batches, moves = [], {}
        for p, count in commit.items():
            first = len(rows[p])
            batch = SHOPS.rows(p, numbered([(b"k", shop_value(first + i)) for i in range(count)], first))
            rows[p] += batch.to_pylist()
            batches.append(batch)
            moves[TOPIC, p] = (first, first + count)
        log.append(pa.Table.from_batches(batches), moves)
    expected = [row for row in rows[partition] if row["offset"] < below]  # type: ignore[operator]
    wanted = columns or SHOPS.schema.names
    for _ in range(2):
        found = store.scan("views/shops.p3", columns, (pc.field("partition") == partition) & (pc.field("offset") < below))
        assert found.to_pylist() == [{name: row[name] for name in wanted} for row in expected]
        log.compact()
    assert store.snapshot("views/shops.p3").positions == {p: len(rows[p]) for p in rows}


def test_snapshot_does_not_change(tmp_path: Path) -> None:
    """Rows and positions of a snapshot stay those of its version while the table goes on, compaction included."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    add(log, 0, 0, 3)
    before = store.snapshot("views/shops.p3")
    add(log, 0, 3, 6)
    log.compact()
    assert before.positions == {0: 3, 1: 0, 2: 0}
    assert places(before.scan()) == [(0, 0), (0, 1), (0, 2)]
    assert store.snapshot("views/shops.p3").positions[0] == 6
    assert store.snapshot("views/shops.p3").version > before.version


def test_doubled_rows_are_refused(tmp_path: Path) -> None:
    """A table whose files strangers merged at the same time, so that its rows are there twice, does not tell positions as if all were well."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    for i in range(3):
        add(log, 0, i * 2, i * 2 + 2)
    first, second = (DeltaTable(tmp_path / "views" / "shops.p3") for _ in range(2))
    first.optimize.compact()
    assert store.snapshot("views/shops.p3").positions == {0: 6, 1: 0, 2: 0}
    second.optimize.compact()
    with pytest.raises(DoubledRows, match="has 12 rows, but mirrors at most 6 records"):
        _ = store.snapshot("views/shops.p3").positions


def test_position_and_refusal(tmp_path: Path) -> None:
    """A log table knows its position, and refuses a batch that starts elsewhere."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    add(log, 1, 0, 4)
    assert store.snapshot("views/shops.p3").positions == {0: 0, 1: 4, 2: 0}
    for first, end in ((0, 4), (5, 6)):
        with pytest.raises(FenceConflict):
            add(log, 1, first, end)


def test_one_refused_partition_refuses_the_commit(tmp_path: Path) -> None:
    """A commit for several partitions is all or nothing."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    add(log, 1, 0, 1)
    rows = SHOPS.rows(0, numbered([(b"k", shop_value(0))]))
    with pytest.raises(FenceConflict):
        log.append(rows, {(TOPIC, 0): (0, 1), (TOPIC, 1): (0, 1)})
    assert store.snapshot("views/shops.p3").positions == {0: 0, 1: 1, 2: 0}


def test_proofs_before_positions(tmp_path: Path) -> None:
    """The checksum of the row before each position is found; partitions without rows have none."""
    store = OfflineStore(tmp_path)
    log = shops(store)
    add(log, 0, 0, 5)
    add(log, 2, 0, 2)
    proofs = {row["partition"]: row["proof"] for row in store.scan("views/shops.p3").to_pylist()}
    assert store.snapshot("views/shops.p3").proofs_before({0: 5, 1: 0, 2: 2}) == proofs
    assert store.snapshot("views/shops.p3").proofs_before({0: 0, 1: 0, 2: 0}) == {}


def test_url_with_scheme_is_the_same_store(tmp_path: Path) -> None:
    """A file URL and a path name the same tables."""
    add(shops(OfflineStore(tmp_path)), 0, 0, 2)
    assert len(OfflineStore(f"file://{tmp_path}").scan("views/shops.p3")) == 2


def test_environment_names_store_and_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is found by TIDEMILL_OFFLINE; for an object store the cloud's variables go along, for a folder they do not."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("TIDEMILL_OFFLINE", "s3://bucket/prefix/")
    store = OfflineStore.load()
    assert store.uri("views/shops.p3") == "s3://bucket/prefix/views/shops.p3"
    assert (store.storage_options or {})["AWS_REGION"] == "eu-west-1"
    assert OfflineStore(tmp_path).storage_options is None


def test_unknown_table(tmp_path: Path) -> None:
    """A table that nobody has written yet is named."""
    with pytest.raises(UnknownTable, match=r"views/shops\.p3"):
        OfflineStore(tmp_path).scan("views/shops.p3")


def test_reader_of_a_torn_table_is_told_the_file(tmp_path: Path) -> None:
    """A reader changes nothing: it names the half-written commit and who mends it."""
    store = OfflineStore(tmp_path)
    add(shops(store), 0, 0, 2)
    commit = max((tmp_path / "views/shops.p3/_delta_log").glob("*.json"))
    commit.write_bytes(commit.read_bytes()[:50])
    with pytest.raises(TornTable) as caught:
        store.snapshot("views/shops.p3")
    assert str(commit) in caught.value.message
    assert "tidemill_offline" in caught.value.mend
    assert commit.exists()


def test_commit_torn_after_a_snapshot_was_taken_is_told(tmp_path: Path) -> None:
    """A snapshot reads its counters from the log when they are asked for: a commit torn since then is the same error as at opening."""
    store = OfflineStore(tmp_path)
    add(shops(store), 0, 0, 2)
    snapshot = store.snapshot("views/shops.p3")
    commit = max((tmp_path / "views/shops.p3/_delta_log").glob("*.json"))
    commit.write_bytes(commit.read_bytes()[:50])
    with pytest.raises(TornTable, match=re.escape(str(commit))):
        _ = snapshot.positions


def test_log_that_is_gone_after_a_snapshot_was_taken_is_told(tmp_path: Path) -> None:
    """A log that cannot be read any more is an error of the store, not one of a library."""
    store = OfflineStore(tmp_path)
    add(shops(store), 0, 0, 2)
    snapshot = store.snapshot("views/shops.p3")
    shutil.rmtree(tmp_path / "views/shops.p3/_delta_log")
    with pytest.raises(OfflineUnavailable, match="cannot read the log"):
        _ = snapshot.positions


def test_missing_data_file_is_told(tmp_path: Path) -> None:
    """A data file that is gone is an error that says what to do, not fewer rows."""
    store = OfflineStore(tmp_path)
    add(shops(store), 0, 0, 2)
    next((tmp_path / "views/shops.p3").glob("*.parquet")).unlink()
    with pytest.raises(OfflineUnavailable, match="again from Kafka"):
        store.scan("views/shops.p3")


def test_predictions_give_each_once(tmp_path: Path) -> None:
    """Of several records with one id the first in the log counts; undecodable ones are left out."""
    store, table = OfflineStore(tmp_path), predictions_table(PROJECT)
    log = store.topic_table(table)
    log.open()
    assert len(store.predictions()) == 0

    def made(name: str, output: float) -> tuple[bytes | None, bytes | None]:
        return name.encode(), encode(PredictionRecord(name, "m", "1", 5, 6, [1.0], output, "s"))

    for partition, pairs in ((1, [made("b", 1), (b"x", b"junk"), made("c", 2), made("b", 9)]), (0, [made("a", 3), made("a", 8)])):
        log.append(table.rows(partition, numbered(pairs)), {(table.topic, partition): (0, len(pairs))})
    once = store.predictions()
    assert [(row["id"], row["output"]) for row in once.to_pylist()] == [("a", 3.0), ("b", 1.0), ("c", 2.0)]
    assert store.predictions(["output"], ["b"]).to_pylist() == [{"output": 1.0}]
    assert len(store.scan("predictions")) == 6
