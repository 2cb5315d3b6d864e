"""Files whose lines are changes of a database, as Debezium writes them: the archive has what it has of the same changes from the topic."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive.trips import NOW_MS, Sent

from tidemill import Event, Field
from tidemill.archive.changes import change_in
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.load import Load
from tidemill.archive.rows import event_table
from tidemill.archive.taking import RefusedRow, Taken, Taker
from tidemill.declarations.project import Project
from tidemill.offline.store import OfflineStore

T0 = NOW_MS - 10_000


def changed(deletes: Literal["pass", "keep"] = "pass", **fields: Any) -> Event:
    """The changes of a table of people."""
    return Event(
        "changed",
        {
            "at": Field(int, path="__source_ts_ms"),
            "who": str,
            "amount": float | None,
            "was": Field(float | None, path=["__before", "amount"]),
            "op": Field(str, path="__op"),
            **fields,
        },
        "at",
        envelope="debezium",
        deletes=deletes,
    )


def change(op: str | None, before: Any, after: Any, at: int = T0, with_schema: bool = False, **more: Any) -> dict[str, Any]:
    """A change as Debezium writes it."""
    found = {"before": before, "after": after, "source": {"ts_ms": at, "lsn": at}, "op": op, "ts_ms": at + 40, **more}
    return {"schema": {"type": "struct"}, "payload": found} if with_schema else found


def row(who: str, amount: float | None = 1.5) -> dict[str, Any]:
    """A row of the table."""
    return {"who": who, "amount": amount, "note": "x}y"}


def taken(path: Path, event: Event, rules: FileRules | None = None, *, checked: bool = True) -> Taken:
    """What a file becomes; `checked`: after the check that begins a load."""
    taker = Taker(Project("p", {"changed": event}, {}), event, rules or FileRules(), None, "load:x", NOW_MS)
    (file,) = history_files([path])
    if checked:
        taker.check(next(file.chunks()))
    found = [taker.take(chunk) for chunk in file.chunks()]
    refused = [each for part in found for each in part.refused]
    return Taken(pa.concat_tables([part.rows for part in found]), refused, sum(part.passed for part in found))


def of_topic(lines: list[Any], event: Event) -> list[dict[str, Any]]:
    """What the archive has of the same changes from Kafka."""
    sent = [Sent(offset, b"" if line is None else json.dumps(line).encode(), NOW_MS) for offset, line in enumerate(lines)]
    rows: list[dict[str, Any]] = event_table(Project("p", {"changed": event}, {}), event).rows(0, sent).to_pylist()
    return rows


def alike(rows: list[dict[str, Any]]) -> list[Any]:
    """What rows of a file and of a topic have in common."""
    return [{name: value for name, value in found.items() if name not in ("_topic", "_known", "_partition")} for found in rows]


ROWS = st.builds(row, st.sampled_from("ab"), st.none() | st.floats(-9, 9))
CHANGES = st.builds(
    change,
    st.sampled_from(("c", "u", "r", "d", "t", "m", "x", None)),
    st.none() | ROWS,
    st.none() | ROWS,
    st.integers(T0, T0 + 9),
    st.booleans(),
) | st.sampled_from((
    None,
    {"schema": {}, "payload": {"status": "BEGIN", "id": "571:1"}},
    {"source": {"ts_ms": T0}, "op": None, "ddl": "ALTER TABLE people"},
))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(CHANGES, min_size=1, max_size=12), deletes=st.sampled_from(("pass", "keep")))
def test_the_archive_has_what_it_has_from_the_topic(tmp_path_factory: pytest.TempPathFactory, lines: list[Any], deletes: Any) -> None:
    """The same rows with the same ids, and every other line is refused, or passed over and counted."""
    path, event = tmp_path_factory.mktemp("files") / "f.jsonl", changed(deletes)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = taken(path, event, checked=False)
    assert alike(found.rows.to_pylist()) == alike(of_topic(lines, event))
    assert len(found.rows) + len(found.refused) + found.passed == len(lines)
    assert all(refused.reason in ("bad_envelope", "missing_field") for refused in found.refused)


def test_changes_and_plain_rows_may_stand_in_one_file(tmp_path: Path) -> None:
    """A line says itself what it is. Times, the moment when it became known, and names of columns are read in the row of the change."""
    path, event = tmp_path / "f.jsonl", changed()
    plain = row("b") | {"__source_ts_ms": T0 + 5, "__op": "r", "__ts_ms": T0 + 45}
    path.write_text("".join(json.dumps(line) + "\n" for line in (change("c", None, row("a")), plain)))
    found = taken(path, event, FileRules(known="__ts_ms"))
    rows = found.rows.to_pylist()
    assert [(each["who"], each["at"], each["op"], each["_known"].timestamp() * 1000) for each in rows] == [
        ("a", T0, "c", T0 + 40),
        ("b", T0 + 5, "r", T0 + 45),
    ]
    assert found.refused == []
    path.write_text(json.dumps(change("c", None, {"name": "a"})) + "\n")
    (renamed,) = taken(path, event, FileRules(renamed={"who": "name"})).rows.to_pylist()
    assert renamed["who"] == "a"


def test_what_is_refused_is_shown_as_in_the_row(tmp_path: Path) -> None:
    """With line, column and value; a member of the row is found in the change."""
    path = tmp_path / "f.jsonl"
    lines = [change("c", None, row("a")), change("u", None, row("a") | {"amount": "dear"}), change("u", None, None)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(each.line, each.reason, each.column, each.value) for each in taken(path, changed()).refused] == [
        (2, "wrong_type", "amount", "dear"),
        (3, "missing_field", "after", ""),
    ]


def test_a_change_counts_once(tmp_path: Path) -> None:
    """From two files, and from a file after the topic: it is known by its source and rows."""
    event = changed()
    project, store, lines = Project("p", {"changed": event}, {}), OfflineStore(tmp_path / "offline"), [change("c", None, row("a"))]
    table = event_table(project, event)
    store.topic_table(table).append(table.rows_of({0: [Sent(0, json.dumps(lines[0]).encode(), NOW_MS)]}), {("changed", 0): (0, 1)})
    refused = Counter[str]()
    lines += [change("u", row("a"), row("a", 2.0), T0 + 1), change("d", row("a", 2.0), None, T0 + 2)]
    counts = []
    for name, written in (("a.jsonl", lines), ("b.jsonl", [*lines, lines[1], None])):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in written))

        def note(_file: object, each: RefusedRow) -> None:
            refused[each.reason] += 1

        report = Load(project, event, store, FileRules(), note).run(history_files([tmp_path / name])[0], lambda _rows, _share: None)
        counts.append((report.loaded, report.copies, report.no_event))
    assert counts == [(1, 1, 1), (0, 3, 2)]
    assert refused == {}


def test_only_changes_are_opened() -> None:
    """Rows of other events, rows with a column of such a name, and what is no JSON go on as they are."""
    event = changed()
    for line in (row("a"), {"op": "c"}, {"payload": {"op": "c"}}, {"after": 1}, [1], "text"):
        assert change_in(json.dumps(line).encode(), event) is None
    assert change_in(b"{", event) is None
    assert change_in(json.dumps(change("c", None, row("a"))).encode(), Event("e", {"at": int}, "at")) is None
