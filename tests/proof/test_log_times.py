"""Ids that a log had lately, where its records are late, wrong about their moment or sent again: a fold of all records, folds of entities alone, and SQL
over the archive say the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proof.world import Happened, World

from tidemill import Event, FeatureView, count, sum
from tidemill.archive.columns import event_folder
from tidemill.declarations.project import Project
from tidemill.kernel.fold import PartitionFold
from tidemill.kernel.packed import EntityState
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import ViewKernel
from tidemill.offline.names import view_folder
from tidemill.proof.book import PartitionBook
from tidemill.proof.log_times import LogTimes
from tidemill.proof.timed_rows import TimedPartition
from tidemill.streams.topics import view_topic
from tidemill.verify.seen import ROW_COLUMNS, Absent, Reached, seen_events
from tidemill.verify.sql import AskedMoment, SqlView

MINUTE_MS = 60_000
START_MS = 1_700_000_000_000
BOUGHT = Event("bought", {"shop": str, "id": str, "price": int, "at": int}, time="at", id="id")
SHOPS = FeatureView("shops", BOUGHT, "shop", [count(), sum("price")], partitions=2)
KERNEL = ViewKernel(SHOPS)
NAMES = [f"shop{i}" for i in range(6)]


def troubled(seed: int) -> list[Happened]:
    """Two hours of events. Many come again, after any time; some lag an hour behind the others, and a few are of an hour that has not come yet."""
    draw = random.Random(seed)
    events: list[Happened] = []
    for i in range(500):
        shop, minute = draw.choice(NAMES), i // 4 + draw.choice([0] * 12 + [-25, -60, 60])
        known_ms = START_MS + MINUTE_MS * minute
        events.append((known_ms, "bought", {"shop": shop, "id": f"{draw.randrange(40)}", "price": i, "at": START_MS}))
    return events


def made(root: Path, seed: int) -> World:
    """A log of such events, of which ingestion sent some again, and its rows."""
    world, draw, events = World(Project("p", {"bought": BOUGHT}, {"shops": SHOPS}, {}), root), random.Random(seed), troubled(seed)
    for i in range(0, len(events), 50):
        world.publish(events[i : i + 50])
        for place in [place for place in world.logs if place[0] == view_topic("p", SHOPS.log)]:
            world.logs[place] += world.logs[place][draw.randrange(len(world.logs[place])) :][:3]
    world.write()
    return world


@pytest.mark.parametrize("seed", range(4))
def test_all_who_fold_say_the_same(tmp_path: Path, seed: int) -> None:
    """Each entity alone has the bytes of the whole fold; SQL has its numbers; the book has the fence."""
    world = made(tmp_path, seed)
    rows, archive = (world.store.snapshot(folder) for folder in (view_folder(SHOPS.log), event_folder("bought")))
    for partition in range(SHOPS.partitions):
        fold, states = world.fold(SHOPS, partition)
        book, end = PartitionBook(SHOPS, partition), fold.fence.next
        book.advance(rows, end)
        assert book.differing(fold.fence) == ""
        assert fold.fence.duplicates > 20
        assert fold.fence.resent
        own = rows.scan(ROW_COLUMNS, pc.field("partition") == partition, order=("offset",))
        timed = TimedPartition(SHOPS, partition).timed(rows, end, own, lambda: None)
        events = archive.scan(order=()).filter(pc.field("shop").isin([key.decode() for key in states]))
        seen = seen_events(SHOPS, events, timed, Reached(end, fold.fence.sources), Absent())
        sql = SqlView(SHOPS, seen.events, seen.echoes, threads=1)
        answers = sql.answers([AskedMoment(key.decode(), START_MS, end) for key in states])
        for (key, state), answer in zip(states.items(), answers, strict=True):
            alone = dict[bytes, EntityState]()
            PartitionFold.start(KERNEL).advance(book.entries(rows, [key.decode()], end), alone)
            assert KERNEL.encode(alone[key]) == KERNEL.encode(state)
            assert [answer.features[feature.name].value for feature in SHOPS.served] == KERNEL.read_state(state, START_MS).values


@pytest.mark.slow
def test_each_part_of_it_matters(tmp_path: Path) -> None:
    """Without the log's time, and without the records that ingestion sent again, SQL says otherwise: the logs have what they are there for."""
    differ = [0, 0]
    for seed in range(4):
        world = made(tmp_path / str(seed), seed)
        rows, archive = (world.store.snapshot(folder) for folder in (view_folder(SHOPS.log), event_folder("bought")))
        for partition in range(SHOPS.partitions):
            fold, states = world.fold(SHOPS, partition)
            own = rows.scan(ROW_COLUMNS, pc.field("partition") == partition, order=("offset",))
            timed = TimedPartition(SHOPS, partition).timed(rows, fold.fence.next, own, lambda: None)
            for i, log in enumerate((own, timed)):
                seen = seen_events(
                    SHOPS,
                    archive.scan(order=()).filter(pc.field("shop").isin([key.decode() for key in states])),
                    log,
                    Reached(fold.fence.next, fold.fence.sources),
                    Absent(),
                )
                sql = SqlView(SHOPS, seen.events, seen.echoes if i == 0 else None, threads=1)
                answers = sql.answers([AskedMoment(key.decode(), START_MS, fold.fence.next) for key in states])
                found = [answer.features["count"].value for answer in answers]
                differ[i] += found != [KERNEL.read_state(state, START_MS).values[0] for state in states.values()]
    assert min(differ) > 0


@given(st.lists(st.lists(st.integers(0, 3_000), max_size=20), max_size=5))
def test_times_from_rows_are_those_of_the_fold(pieces: list[list[int]]) -> None:
    """However the rows are cut: the turns of a memory that saw the records one by one, and the part in which each of them was told."""
    times, recent, parts = LogTimes(SHOPS), Recent(30 * MINUTE_MS), list[int]()
    for piece in pieces:
        begin = len(parts)
        for i, minute in enumerate(piece):
            if minute * MINUTE_MS >= recent.turn_ms:
                recent.turn(minute * MINUTE_MS, begin + i)
            parts.append(recent.turns[-1][0])
        times.take(np.arange(begin, len(parts)), np.array(piece, np.int64) * MINUTE_MS)
        assert times.turns == recent.turns
    assert (times.at_ms(np.arange(len(parts))) // (10 * MINUTE_MS)).tolist() == parts
