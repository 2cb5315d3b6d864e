"""From archived events to the records of a view's log: without servers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operations.fill.shop import LOAD, Raw, archive, declare, expected, raws

from tidemill.archive.columns import event_folder
from tidemill.archive.reading import loads, unfinished
from tidemill.archive.view_records import FILL, MadeRecords, RecordMaker, slices
from tidemill.declarations.project import Project
from tidemill.kernel.fold import PartitionFold, entry_decoder
from tidemill.kernel.packed import EntityState
from tidemill.kernel.view import ViewKernel
from tidemill.offline.store import OfflineStore
from tidemill.routing.router import Router
from tidemill.streams.topics import view_topic
from tidemill.verify.checks import view_archive

WHERE = "amount * 2 >= 1 and card not in ['d']"


def is_fed(data: Mapping[str, Any]) -> bool:
    """`WHERE` in plain Python."""
    return data["card"] in ("a", "b", "c") and data["amount"] >= 0.5


def made(project: Project, store: OfflineStore, most: int) -> Iterator[MadeRecords]:
    """The records of the view, slice by slice."""
    view, snapshot = project.views["cards"], store.snapshot(event_folder("paid"))
    maker = RecordMaker(view)
    for events in slices(store, view, snapshot, most):
        yield maker.made(events)


def folded(project: Project, parts: list[MadeRecords]) -> dict[bytes, bytes]:
    """What the records fold to."""
    view = project.views["cards"]
    kernel, decode, states = ViewKernel(view), entry_decoder(view), dict[bytes, EntityState]()
    for partition in range(view.partitions):
        records = [record for part in parts for record in part.records.get(partition, [])]
        fold = PartitionFold.start(kernel)
        fold.advance([decode(offset, key, value) for offset, (key, value, _) in enumerate(records)], states)
        assert (fold.fence.poison, fold.fence.resent) == (0, 0)
    return {key: kernel.encode(state) for key, state in states.items()}


@pytest.mark.slow
@given(
    each=st.integers(0, 25), loaded=st.integers(0, 20), seed=st.integers(0, 99), ahead=st.sampled_from([None, "30m"]),
    where=st.sampled_from([None, WHERE]),
    most=st.sampled_from([1, 7, 1000]),
)  # fmt: skip
def test_the_log_folds_to_what_the_events_say(each: int, loaded: int, seed: int, ahead: str | None, where: str | None, most: int) -> None:
    """Whatever the slices: events of three partitions and of a file, in the order of known."""
    with tempfile.TemporaryDirectory() as folder:
        store, early = OfflineStore(f"{folder}/offline"), declare(Path(folder) / "shop", "shop")
        later = declare(Path(folder) / "shop", "shop", later=True, ahead=ahead, where=where)
        live, files = raws("shop.paid", 3, each, seed), raws(LOAD, 1, loaded, seed + 1)
        archive(store, early, [])
        archive(store, early, [event for event in live if event.offset < each // 2])
        archive(store, later, [event for event in live if event.offset >= each // 2])
        archive(store, early, files)
        if not live and not files:
            return
        parts = list(made(later, store, most))
        accepted = [event for event in live + files if event.data.get("tip") != "much" or event.offset < each // 2 or event.topic == LOAD]
        fed = [event for event in accepted if where is None or is_fed(event.data)]
        assert folded(later, parts) == expected(later.views["cards"], fed)
        counts = [sum(part.events for part in parts), sum(part.passed_over for part in parts), sum(part.unkeyed for part in parts)]
        assert counts == [len(accepted), len(accepted) - len(fed), len([event for event in fed if event.data["card"] is None])]
        left = len(fed) - counts[2] - sum(part.ahead for part in parts)
        assert sum(len(records) for part in parts for records in part.records.values()) == left


@pytest.mark.parametrize("where", [None, WHERE])
def test_records_are_those_of_the_router(where: str | None, tmp_path: Path) -> None:
    """Byte by byte, up to the source; sources of the archive are numbered from 0 in their own partition."""
    project = declare(tmp_path / "shop", "shop", later=True, where=where)
    store = OfflineStore(tmp_path / "offline")
    events = [event for event in raws("shop.paid", 1, 40, 5) if event.data.get("tip") != "much"]
    events = [Raw(event.topic, 0, number, T, event.data) for number, (T, event) in enumerate(sorted((e.known, e) for e in events))]
    archive(store, project, events)
    router, routed = Router(project), list[tuple[int, bytes | None, dict[str, object]]]()
    for event in events:
        found = router.route(event.topic, 0, event.offset, event.known, b"k", event.value, event.headers)
        routed += [(p, key, json.loads(value)) for topic, p, key, value in found if topic == view_topic("shop", project.views["cards"].log)]
    (part,) = made(project, store, 1000)
    for partition, records in part.records.items():
        wanted = [(key, value) for p, key, value in routed if p == partition]
        assert [(key, json.loads(value or b"") | {"source": None}) for key, value, _ in records] == [
            (key, value | {"source": None}) for key, value in wanted
        ]
    sources = sorted(json.loads(value or b"")["source"] for records in part.records.values() for _, value, _ in records)
    assert sources == [[FILL, number] for number in range(len(routed))]


@pytest.mark.parametrize("most", [1, 3])
def test_events_of_one_moment_are_not_divided(tmp_path: Path, most: int) -> None:
    """A slice may be larger than asked for, and its order is that of the places."""
    project, store = declare(tmp_path / "shop", "shop"), OfflineStore(tmp_path / "offline")
    data = {"at": 1_700_000_000_000, "card": "a", "amount": 1.0, "no": None}
    archive(store, project, [Raw("shop.paid", partition, offset, 1_700_000_000_007, data) for partition in (1, 0) for offset in range(3)])
    tables = list(slices(store, project.views["cards"], store.snapshot(event_folder("paid")), most))
    rows = [(row["_partition"], row["_offset"]) for table in tables for row in table.to_pylist()]
    assert rows == [(partition, offset) for partition in (0, 1) for offset in range(3)]
    assert max(map(len, tables)) == 6


def test_a_file_that_is_not_loaded_to_its_end(tmp_path: Path) -> None:
    """Of a load that goes on or was broken off, a version has nothing, and verify computes it without; once it ends, everything."""
    project, store = declare(tmp_path / "shop", "shop"), OfflineStore(tmp_path / "offline")
    view, part = project.views["cards"], "load:00aa"
    archive(store, project, [*raws("shop.paid", 1, 6, 1), *raws(LOAD, 1, 5, 2), *raws(part, 1, 4, 3)])
    snapshot = store.snapshot(event_folder("paid"))
    assert (loads(snapshot), unfinished(snapshot)) == ({LOAD.removeprefix("load:")}, {part: 4})
    filled = sorted(topic for events in slices(store, view, snapshot) for topic in events["_topic"].to_pylist())
    assert filled == sorted(["shop.paid"] * 6 + [LOAD] * 5)
    assert sorted(view_archive(store, view, loads(snapshot))["_topic"].to_pylist()) == filled
    table = store.counted_table(event_folder("paid"), snapshot.schema)
    table.open()
    table.append(table.schema.empty_table(), {f"{part}:done": (0, 1)})
    ended = store.snapshot(event_folder("paid"))
    assert unfinished(ended) == {}
    assert sum(map(len, slices(store, view, ended))) == 15
