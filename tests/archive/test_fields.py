"""Fields that publishers do not write plainly: what the archive keeps, and what is read of events from before they were declared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent

from tidemill import Event, Field
from tidemill.archive.columns import table_schema
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.reading import beginnings, field_values, lacking, read_events
from tidemill.archive.rows import event_table
from tidemill.archive.taking import Taker
from tidemill.archive.times import TimeRule
from tidemill.declarations.project import Project
from tidemill.errors import UnusableFile
from tidemill.offline.store import OfflineStore
from tidemill.routing.events import EventReader
from tidemill.routing.refusals import Refused
from tidemill.verify.fields import field_sql

TIME = {"at": Field(int, path="@timestamp", unit="us")}
NEW: dict[str, Any] = {
    "user": Field(str | None, path=["payload", "user", "user-id"]),
    "amount": Field(float | None, path=["payload", "amount"], lenient=True),
    "seats": Field(int | None, lenient=True, default=2),
    "member": Field(bool, path="is member", lenient=True, default=False),
    "seen": Field(int | None, unit="s", lenient=True),
    "heard": Field(int | None, path=["payload", "heard"], unit="ns"),
    "born": Field(int | None, unit="d"),
    "plain": int | None,
}
BEFORE, AFTER = Event("seen", TIME, "at"), Event("seen", TIME | NEW, "at")
NUMBERS = st.integers(-(10**12), 10**12) | st.sampled_from((0, 2, 300.0, 2.5, -0.25, 1e30))
TEXTS = st.sampled_from(("12", "+7", "12.50", "-3.0", ".5", "1e3", "1e400", "nan", "true", "F", "0", "", "x", "12 ", "9" * 18))
MEMBERS = {
    "seats": NUMBERS | TEXTS | st.none(),
    "is member": st.booleans() | TEXTS,
    "seen": NUMBERS | TEXTS | st.none(),
    "born": NUMBERS | st.integers(-800_000, 3_000_000) | st.none(),
    "plain": NUMBERS | st.none(),
    "more": st.dictionaries(st.sampled_from("ab"), NUMBERS),
}
PAYLOADS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "user": st.none() | st.fixed_dictionaries({}, optional={"user-id": st.sampled_from((None, "u1", "ü")), "age": NUMBERS}),
        "amount": NUMBERS | TEXTS | st.none(),
        "heard": NUMBERS | st.integers(0, 2**62),
    },
)
EVENTS = st.fixed_dictionaries(
    {"@timestamp": st.integers(0, 999).map(lambda part: NOW_MS * 1000 - part)}, optional={**MEMBERS, "payload": PAYLOADS}
)


def archived(folder: Path, declared: Event, values: Sequence[bytes]) -> OfflineStore:
    """The events, as a writer stores them by a declaration."""
    store, table = OfflineStore(folder), event_table(Project("p", {"seen": declared}, {}), declared)
    sent = [Sent(offset, value, NOW_MS) for offset, value in enumerate(values)]
    store.topic_table(table).append(table.rows_of({0: sent}), {("seen", 0): (0, len(sent))})
    return store


def by_sql(store: OfflineStore) -> list[dict[str, Any]]:
    """The fields, as `verify` reads them."""
    return in_sql(store.snapshot("events/seen").scan(store.snapshot("events/seen").columns, order=("_offset",)))


def in_sql(archive: pa.Table) -> list[dict[str, Any]]:
    """The same of an archive that was read."""
    fields = ", ".join(f"{field_sql(AFTER, name, archive)} AS {name}" for name in NEW)
    found: list[dict[str, Any]] = duckdb.from_arrow(archive).project(fields).to_arrow_table().to_pylist()
    return found


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=20))
def test_whoever_reads_an_event_sees_the_same(events: list[dict[str, Any]]) -> None:
    """The live path today, the archive that had columns, the archive from before the fields were declared, and both in SQL."""
    reader, accepted, expected = EventReader(AFTER), list[bytes](), list[dict[str, Any]]()
    for event in events:
        value = json.dumps(event).encode()
        try:
            data = reader.read(value, [], NOW_MS).data
        except Refused:
            continue
        accepted.append(value)
        expected.append({name: getattr(data, name) for name in NEW})
    for declared in (BEFORE, AFTER):
        with TemporaryDirectory() as folder:
            store = archived(Path(folder), declared, accepted)
            assert read_events(store, AFTER, list(NEW)).select(list(NEW)).to_pylist() == expected
            assert not accepted or by_sql(store) == expected


CELLS = {
    "payload.user.user-id": ("u1", "ü", "7", "t"),
    "user": ("u2",),
    "payload.amount": ("12.50", " +7 ", ".5", "1e3", "1e400", "NaN", "x", "12_0", "\u00a05"),
    "seats": ("3", "300.0", "3.", "3.5", "1e3", "9007199254740993", "9007199254740993.0", "9" * 19, "+007", "-4 ", "t", "?"),
    "is member": ("t", "True ", "1", "f", "FALSE", "0", "yes"),
    "member": ("true",),
    "seen": ("1700000000", "1.7e9", "99999999999999", "2024-01-01T00:00:00Z"),
    "payload.heard": ("1700000000123456789", "1"),
    "plain": ("4", "4.0", " 4", "-9223372036854775808", "9223372036854775808", "1e2", "4.5", "1e-2", '"1,000"', "inf"),
}
"""Columns of a CSV file, and what their cells may be; "?" means that there is no value."""


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.sets(st.sampled_from(sorted(CELLS)), min_size=1).flatmap(
        lambda names: st.lists(
            st.fixed_dictionaries({name: st.sampled_from(("", "?", '" "', *CELLS[name])) for name in names}), min_size=1, max_size=8
        )
    )
)
def test_sql_takes_texts_of_files_as_the_archive_does(rows: list[dict[str, str]]) -> None:
    """A file was loaded before any of the fields was declared: under each name that its columns may have, beside an event that came live."""
    live = Sent(0, json.dumps({"@timestamp": WHEN * 1000, "plain": "4", "seats": "3"}).encode(), NOW_MS)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "h.csv"
        path.write_text("\n".join(",".join(row) for row in (["@timestamp", *rows[0]], *([f"{WHEN}000", *row.values()] for row in rows))))
        loaded = pa.Table.from_pylist(taken(path, FileRules(nulls=("?",)), BEFORE), table_schema(BEFORE))
    came = event_table(Project("p", {"seen": BEFORE}, {}), BEFORE).rows(0, [live])
    archive = pa.concat_tables([loaded, pa.table(came).select(loaded.column_names)]).combine_chunks()
    assert len(archive) == len(rows) + 1
    assert in_sql(archive) == pa.table(field_values(AFTER, archive, list(NEW))).to_pylist()


@settings(max_examples=60)
@given(EVENTS)
def test_the_archive_has_all_that_was_published(event: dict[str, Any]) -> None:
    """What columns hold is not in `_extra`, all else is there as it was written, and a part of a millisecond too."""
    table = event_table(Project("p", {"seen": AFTER}, {}), AFTER)
    rows = table.rows(0, [Sent(0, json.dumps(event).encode(), NOW_MS)]).to_pylist()
    if not rows:
        return
    extra = json.loads(rows[0]["_extra"] or "{}")
    payload, rest = event.get("payload") or {}, extra.get("payload") or {}
    for part, found, held in (
        (event, extra, {"seats", "is member", "seen", "born", "plain", "payload"}),
        (payload, rest, {"user", "amount"}),
    ):
        assert {key: value for key, value in found.items() if key not in {*held, "@timestamp", "heard"}} == {
            key: value for key, value in part.items() if key not in {*held, "@timestamp", "heard"}
        }
    assert ("@timestamp" in extra) == (event["@timestamp"] % 1000 != 0)
    heard = payload.get("heard")  # one of before 1970 is kept in any case
    assert ("heard" in rest) == (heard is not None and (heard < 0 or heard % 10**6 != 0))
    assert ("seats" in extra) == ("seats" in event and event["seats"] is None)
    assert (rest.get("user") or {}).get("age") == (payload.get("user") or {}).get("age")


def test_a_field_with_a_default_lacks_nothing(tmp_path: Path) -> None:
    """So it need not be nullable for earlier events, and has no beginning; another one has."""
    events = [json.dumps({"@timestamp": NOW_MS * 1000} | more).encode() for more in ({}, {"payload": {"user": {"user-id": "a"}}})]
    snapshot = archived(tmp_path, BEFORE, events).snapshot("events/seen")
    assert lacking(snapshot, AFTER) == {"user", "amount", "seen", "heard", "born", "plain"}
    found = beginnings(snapshot, AFTER)
    assert "seats" not in found
    assert "member" not in found
    assert found["amount"] is None


WHEN = NOW_MS - 9_000
EXPECTED = {"user": "u1", "amount": 12.5, "seats": 2, "member": True, "seen": WHEN, "heard": None, "born": None, "plain": 4}


def taken(path: Path, reading: FileRules | None = None, event: Event = AFTER) -> list[dict[str, Any]]:
    """The rows that a file becomes."""
    taker = Taker(Project("p", {"seen": event}, {}), event, reading or FileRules(), None, "load:x", NOW_MS)
    (file,) = history_files([path])
    for chunk in file.chunks():
        taker.check(chunk)
        break
    found = [taker.take(chunk) for chunk in file.chunks()]
    assert not any(each.refused for each in found), [each.refused for each in found]
    return [row for each in found for row in each.rows.to_pylist()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("published.csv", f"@timestamp,payload.user.user-id,payload.amount,seats,is member,seen,plain\n{WHEN}000,u1,12.5,,t,{WHEN // 1000},4\n"),
        ("own.csv", f"at,user,amount,member,seen,plain\n{WHEN}000,u1,12.50,true,{WHEN // 1000},4\n"),
        ("odd.csv", f"at,user,amount,member,seen,plain\n{WHEN}000,u1, +12.5 ,true,{WHEN // 1000},4.0\n"),
        (
            "published.jsonl",
            json.dumps({"@timestamp": WHEN * 1000, "payload": {"user": {"user-id": "u1"}, "amount": "12.5"}, "is member": "t", "seen": WHEN // 1000, "plain": 4}),
        ),
        ("own.jsonl", json.dumps({"at": WHEN * 1000, "user": "u1", "amount": 12.5, "member": True, "seen": str(WHEN // 1000), "plain": 4.0})),
        ("texts.jsonl", json.dumps({"at": "2023-11-14T22:13:11Z", "payload.user.user-id": "u1", "amount": "12.5", "member": "1", "seen": "2023-11-14T22:13:11+00:00", "plain": 4})),
    ],
)  # fmt: skip
def test_files_have_the_publishers_names_or_the_fields(tmp_path: Path, name: str, content: str) -> None:
    """With the declared units; an empty cell of a field with a default is the default."""
    (tmp_path / name).write_text(content)
    (row,) = taken(tmp_path / name)
    assert {field: row[field] for field in NEW} == EXPECTED
    assert (row["_time"].timestamp() * 1000, row["_known"].timestamp() * 1000) == (WHEN, WHEN)


def test_an_option_says_more_than_the_declared_unit(tmp_path: Path) -> None:
    """A file may have another unit than the topic; the column of `known` has that of its field."""
    content = {"at": WHEN, "user": "u1", "amount": 12.5, "member": True, "seen": WHEN, "plain": 4}
    (tmp_path / "a.jsonl").write_text(json.dumps(content))
    (tmp_path / "a.csv").write_text(",".join(content) + "\n" + ",".join(map(str, content.values())) + "\n")
    for name in ("a.jsonl", "a.csv"):
        (row,) = taken(tmp_path / name, FileRules(known="at", times=TimeRule(unit="ms")))
        assert {field: row[field] for field in NEW} == EXPECTED
    (tmp_path / "b.jsonl").write_text(json.dumps(content | {"at": WHEN * 1000, "seen": WHEN // 1000}))
    (row,) = taken(tmp_path / "b.jsonl", FileRules(known="at"))
    assert row["_known"].timestamp() * 1000 == WHEN


def test_a_file_with_both_names_is_refused(tmp_path: Path) -> None:
    """One of the two would be lost."""
    (tmp_path / "a.csv").write_text(f"at,@timestamp,member\n{WHEN}000,{WHEN}000,t\n")
    with pytest.raises(UnusableFile, match="a column 'at' besides '@timestamp'"):
        taken(tmp_path / "a.csv")


def test_files_of_another_unit(tmp_path: Path) -> None:
    """All times: the file is refused. Some: these rows, in the words of the live path."""
    event = Event("seen", {"at": int}, "at")
    taker = Taker(Project("p", {"seen": event}, {}), event, FileRules(), None, "load:x", NOW_MS)
    for name, content in (("a.csv", f"at\n{WHEN // 1000}\n{WHEN // 1000}\n"), ("a.jsonl", json.dumps({"at": WHEN * 1000}) + "\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UnusableFile, match="none of the times can be one in milliseconds"):
            taker.check(next(history_files([tmp_path / name])[0].chunks()))
    (tmp_path / "b.csv").write_text(f"at\n{WHEN // 1000}\n{WHEN}\n-1\n")
    refused = taker.take(next(history_files([tmp_path / "b.csv"])[0].chunks())).refused
    assert [row.detail.partition(": ")[2] for row in refused] == [
        '1699999991 ms is 1970-01-20: are these seconds? declare unit="s"',
        "-1 ms is 1969-12-31, before 1971-01-01",
    ]


@pytest.mark.parametrize("content", ["at\n{}\n", '{{"at": {}}}\n'])
def test_rows_of_another_unit_than_the_declared_one(tmp_path: Path, content: str) -> None:
    """The unit is guessed from the number in the file, as from that of an event."""
    event = Event("seen", {"at": Field(int, unit="us")}, "at")
    path = tmp_path / ("a.csv" if content.startswith("at") else "a.jsonl")
    path.write_text(content.format(WHEN + 41))
    taker = Taker(Project("p", {"seen": event}, {}), event, FileRules(), None, "load:x", NOW_MS)
    (refused,) = [row for chunk in history_files([path])[0].chunks() for row in taker.take(chunk).refused]
    assert refused.detail == 'at: 1699999991 ms is 1970-01-20, read as microseconds: are these milliseconds? declare unit="ms"'


def test_files_of_long_ago(tmp_path: Path) -> None:
    """By the switch of the event: rows from before 1970, from every kind of column."""
    event = Event("seen", {"at": int}, "at", earliest="1900-01-01")
    taker = Taker(Project("p", {"seen": event}, {}), event, FileRules(), None, "load:x", NOW_MS)
    (tmp_path / "a.csv").write_text("at\n-5000\n1960-02-03T00:00:00Z\n5\n")
    (tmp_path / "a.jsonl").write_text('{"at": -5000}\n{"at": "1960-02-03T00:00:00Z"}\n{"at": 5}\n')
    for name in ("a.csv", "a.jsonl"):
        rows = taker.take(next(history_files([tmp_path / name])[0].chunks())).rows.to_pylist()
        assert [row["at"] for row in rows] == [-5000, -312_768_000_000, 5]
