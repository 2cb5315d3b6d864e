"""History of a topic with several types, and whole numbers that a feature cannot hold: refused by the rules of the live path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tidemill import Event, FeatureView, Type, count, last
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.rows import event_table
from tidemill.archive.taking import RefusedRow, Taker
from tidemill.declarations.project import Project
from tidemill.routing.router import Router
from tidemill.testing.log import TopicRecord

FIELDS = {"at": int, "shop": str, "account": int, "order": int}
T0 = 1_700_000_000_000
EXACT = 2**53
TYPES = {"a field": Type("Paid", field="type"), "nested": Type("Paid", field=["meta", "type"]), "a number": Type(3, field="type")}


def declared(of: Type | None) -> Project:
    """A project in which a view reads `account`, and nothing reads `order`."""
    event = Event("paid", FIELDS, time="at", topic="payments", type=of)
    view = FeatureView("shops", event, "shop", [count(), last("account")], windows=["1h"])
    return Project("shop", {"paid": event}, {"shops": view})


def event(number: int, **changed: Any) -> dict[str, Any]:
    """An event."""
    return {"at": T0 + number, "shop": "s", "account": number, "order": number, **changed}


def loaded(project: Project, path: Path) -> tuple[list[int], list[RefusedRow]]:
    """The orders that a file gives, and the rows that are refused."""
    taker = Taker(project, project.events["paid"], FileRules(), None, "load:x", T0 + 10**9)
    (file,) = history_files([path])
    taken = [taker.take(chunk) for chunk in file.chunks()]
    return sorted(order for each in taken for order in each.rows["order"].to_pylist()), [row for each in taken for row in each.refused]


def files(events: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The same events as lines of JSON, as CSV, and as Parquet; nested objects as columns with dots."""
    flat = [
        {f"{k}.{n}": v for k, found in e.items() if isinstance(found, dict) for n, v in found.items()}
        | {k: v for k, v in e.items() if not isinstance(v, dict)}
        for e in events
    ]
    table = pa.table({name: [row.get(name) for row in flat] for name in {name: None for row in flat for name in row}})
    lines, csv, parquet = folder / "f.jsonl", folder / "f.csv", folder / "f.parquet"
    lines.write_text("\n".join(map(json.dumps, events)))
    pa_csv.write_csv(table, csv)
    pq.write_table(table, parquet)
    return [lines, csv, parquet]


@pytest.mark.parametrize("beyond", [EXACT + 1, -EXACT - 1, 2**63 - 1, -(2**63)])
def test_a_number_that_a_feature_cannot_hold_is_refused(tmp_path: Path, beyond: int) -> None:
    """9007199254740993 would be served as ...992. It is refused, live and from files, where a feature reads it; elsewhere all 64 bits are kept."""
    project = declared(None)
    events = [event(0), event(1, account=EXACT), event(2, account=-EXACT), event(3, account=beyond), event(4, order=beyond)]
    router = Router(project)
    for offset, found in enumerate(events):
        router.route("payments", 0, offset, T0, None, json.dumps(found).encode(), [])
    assert router.refused == {("payments", "out_of_range"): 1}
    for path in files(events, tmp_path):
        orders, refused = loaded(project, path)
        assert orders == sorted([0, 1, 2, beyond]), path.name
        assert [(row.number, row.reason, row.column) for row in refused] == [(3, "out_of_range", "account")], path.name


def test_a_condition_compares_all_digits() -> None:
    """A condition is no feature: it tells two accounts apart that a double cannot."""
    paid = Event("paid", FIELDS, time="at")
    view = FeatureView("shops", paid, "shop", [count()], where=f"account == {EXACT + 1}", windows=["1h"])
    router = Router(Project("shop", {"paid": paid}, {"shops": view}))
    routed = [router.route("paid", 0, n, T0, None, json.dumps(event(n, account=EXACT + n)).encode(), []) for n in range(3)]
    assert [len(records) for records in routed] == [0, 1, 0]


@pytest.mark.parametrize("place", TYPES)
def test_rows_of_another_type_are_refused(tmp_path: Path, place: str) -> None:
    """A file that tells types gives the event its own; one that tells none is all of one type."""
    of = TYPES[place]
    project, kinds = declared(of), [of.value, "Other", of.value, 4]

    def typed(number: int, kind: Any) -> dict[str, Any]:
        more: dict[str, Any] = {"meta": {"type": str(kind)}} if place == "nested" else {"type": kind if place == "a number" else str(kind)}
        return event(number, **more)

    numbers = [kind for kind in kinds if place != "a number" or isinstance(kind, int)]
    events = [typed(number, kind) for number, kind in enumerate(numbers)]
    mine = [number for number, kind in enumerate(numbers) if kind == of.value]
    for path in files(events, tmp_path):
        orders, refused = loaded(project, path)
        assert orders == mine, path.name
        assert {row.reason for row in refused} == {"wrong_event"}
        assert len(refused) == len(events) - len(mine)
    for path in files([event(number) for number in range(3)], tmp_path):
        assert loaded(project, path) == ([0, 1, 2], []), path.name
    records = [TopicRecord("payments", 0, n, None, json.dumps(found).encode(), T0, ()) for n, found in enumerate(events)]
    assert event_table(project, project.events["paid"]).rows(0, records)["order"].to_pylist() == mine
