"""Erasing and forgetting: what was asked for is gone, with its bytes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent, project_of, trip

from tidemill import FeatureView, last
from tidemill.archive.erasure import Wanted, erase, erased_positions, matching, other_places
from tidemill.archive.reading import read_events
from tidemill.archive.retention import ArchiveSettings, forget_before
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, DoubledRows
from tidemill.offline.store import OfflineStore

PROJECT = project_of()
TRIPS = PROJECT.events["trips"]


def stored(store: OfflineStore, *values: bytes, first: int = 0, known_ms: int = NOW_MS) -> None:
    """Events appended to partition 0 of the archive, in one commit."""
    table = event_table(PROJECT, TRIPS)
    rows = table.rows_of({0: [Sent(first + i, value, known_ms) for i, value in enumerate(values)]})
    log = store.topic_table(table)
    log.append(rows, {(table.topic, 0): (first, first + len(values))})


def offsets(store: OfflineStore) -> list[int]:
    """The offsets of what is archived."""
    found: list[int] = read_events(store, TRIPS, [])["_offset"].to_pylist()
    return found


def test_the_bytes_are_gone(tmp_path: Path) -> None:
    """After an erasure no Parquet file of the table holds the person; the others' events and the positions stay."""
    store = OfflineStore(tmp_path)
    for first in range(0, 40, 10):
        stored(store, *(trip(i, zone="person-4711" if i % 7 == 3 else "z") for i in range(first, first + 10)), first=first)
    store.topic_table(event_table(PROJECT, TRIPS)).compact()  # leaves replaced files that hold the person too
    wanted = Wanted.parse(TRIPS, "zone=person-4711")
    assert len(matching(store, wanted)) == 6
    assert erase(store, wanted) == 6
    assert offsets(store) == [i for i in range(40) if i % 7 != 3]
    assert not [path for path in (tmp_path / "events").rglob("*.parquet") if b"person-4711" in path.read_bytes()]
    assert store.topic_table(event_table(PROJECT, TRIPS)).position(0) == 40
    assert erased_positions(store, TRIPS) == {(TRIPS.topic, 0, i) for i in range(3, 40, 7)}
    assert erase(store, wanted) == 0


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["a", "A", "it's", 'say "x"', "ä\\", "a' OR '1'='1", "\t", "x" * 300]), min_size=1, max_size=6), st.data())
def test_exactly_these_are_erased(tmp_path_factory: pytest.TempPathFactory, zones: list[str], data: st.DataObject) -> None:
    """Whatever a value looks like, the events with it are erased and no others, wherever the field lies."""
    store = OfflineStore(tmp_path_factory.mktemp("t"))
    stored(store, *(trip(i, zone=zone) for i, zone in enumerate(zones)))
    gone = data.draw(st.sampled_from(zones))
    assert erase(store, Wanted.parse(TRIPS, f"zone={gone}")) == zones.count(gone)
    assert offsets(store) == [i for i, zone in enumerate(zones) if zone != gone]


def test_a_value_among_the_undeclared_fields(tmp_path: Path) -> None:
    """A field that was declared later is erased in the events that carried it before, too."""
    store = OfflineStore(tmp_path)
    stored(store, trip(0, rider=7), trip(1, rider="7"), trip(2, rider=8), trip(3))
    later = type(TRIPS)("trips", {**TRIPS.fields, "rider": int | None}, time="at", id="id")
    assert erase(store, Wanted.parse(later, "rider=7")) == 1
    assert offsets(store) == [1, 2, 3]


def test_what_cannot_be_erased_is_named() -> None:
    """A field that is not declared, no value, a text for a number: the mistake is told; other places are named."""
    for text, message in (("zone", "does not name a field"), ("fare=1", "does not name a field"), ("seats=many", "whole number")):
        with pytest.raises(BadRequest, match=message):
            Wanted.parse(TRIPS, text)
    assert any("view zones" in place and "Redis" in place for place in other_places(PROJECT, Wanted.parse(TRIPS, "zone=a")))
    assert not any("view zones" in place for place in other_places(PROJECT, Wanted.parse(TRIPS, "seats=2")))
    newest = FeatureView("newest", TRIPS, "zone", [last("id")])
    told = other_places(Project("p", {"trips": TRIPS}, {"newest": newest}), Wanted.parse(TRIPS, "id=t1"))
    assert any("view newest" in place and "Redis where a feature keeps it" in place for place in told)


def test_nothing_to_erase_makes_nothing(tmp_path: Path) -> None:
    """Without a table there is nothing to erase or to forget, and no table afterwards."""
    store = OfflineStore(tmp_path)
    assert (erase(store, Wanted.parse(TRIPS, "zone=a")), forget_before(store, TRIPS, NOW_MS)) == (0, 0)
    assert list(tmp_path.iterdir()) == []


def test_old_events_are_forgotten(tmp_path: Path) -> None:
    """What became known before the moment is deleted, to the millisecond; appends beside it lose nothing."""
    store = OfflineStore(tmp_path)
    table = event_table(PROJECT, TRIPS)
    writer = store.topic_table(table)
    for first in range(3):
        rows = table.rows_of({0: [Sent(first, trip(first, at=NOW_MS - 10_000), NOW_MS + first)]})
        writer.append(rows, {(table.topic, 0): (first, first + 1)})
    assert forget_before(store, TRIPS, NOW_MS) == 0
    assert forget_before(store, TRIPS, NOW_MS + 2) == 2
    writer.append(table.rows_of({0: [Sent(3, trip(3), NOW_MS + 9)]}), {(table.topic, 0): (3, 4)})
    assert offsets(store) == [2, 3]


def test_days_end_at_midnight() -> None:
    """The oldest moment that is kept moves by a whole day at midnight UTC; without days it is the beginning."""
    midnight = NOW_MS - NOW_MS % 86_400_000
    kept = ArchiveSettings(days=2)
    assert {kept.kept_since_ms(midnight + ms) for ms in (0, 1, 86_399_999)} == {midnight - 2 * 86_400_000}
    assert ArchiveSettings(days=None).kept_since_ms(NOW_MS) == 0


def test_a_row_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Nothing is computed from it; erasing still finds both."""
    store = OfflineStore(tmp_path)
    stored(store, trip(1), trip(2))
    rows = store.snapshot("events/trips").scan(order=())
    store.topic_table(event_table(PROJECT, TRIPS)).append(rows.slice(0, 1), {})
    with pytest.raises(DoubledRows, match="'events/trips' has 3 rows, but mirrors at most 2 records"):
        offsets(store)
    assert len(matching(store, Wanted.parse(TRIPS, "id=t1"))) == 2
    assert erase(store, Wanted.parse(TRIPS, "id=t1")) == 2
    assert offsets(store) == [1]
