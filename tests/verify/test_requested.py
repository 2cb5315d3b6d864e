"""What questions carry as requests, beside training rows: numbers, categories, texts and tensors; and those that are refused and are no rows."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.demo_state import NOW_MS
from tests.testing.desk import CLOSED, MINUTE, OPENED, PIXELS, SHOPS, base64, happened, lived, project
from tests.verify.archive import Raw, archived

import tidemill as tm
from tidemill.limits import WORDS_BYTES
from tidemill.testing import World
from tidemill.verify.checks import check_training_set
from tidemill.verify.requested import UnfitValue, as_requested

DESK = project([SHOPS, tm.Words("note"), tm.Request("shop", str), PIXELS, tm.Request("amount")])
UNTIL_MS = NOW_MS + 10**8
TICKETS = 60
LISTED = [[0.1, 2.0, -3.0], [0.0, 1e-3, 7.0]]


def raw(place: int, known_ms: int, name: str, data: dict[str, Any]) -> Raw:
    """An event as the archive has it."""
    return Raw(name, 0, place, known_ms, data["at"], data["ticket"], data)


def lived_through() -> tuple[World, dict[str, pa.Table]]:
    """Tickets, four of which would be refused as requests, and one of which sends its picture as lists."""
    events, at = happened(TICKETS), NOW_MS + (TICKETS + 1) * MINUTE
    odd: list[dict[str, Any]] = [
        {"note": "x" * (WORDS_BYTES + 1)}, {"pixels": base64([[1, 2, 3]])}, {"pixels": json.dumps([[1, 2, 3], [1, 2]])},
        {"pixels": base64([[1, 2, 3], [4, 5, np.inf]])}, {"pixels": json.dumps(LISTED)},
    ]  # fmt: skip
    for i, changed in enumerate(odd):
        asked = {"ticket": f"odd{i}", "at": at, "shop": "a", "amount": 0.1, "note": "odd", "pixels": base64(LISTED)} | changed
        events.append((at + i, "opened", asked))
        events.append((at + i + 1_000, "closed", {"ticket": f"odd{i}", "at": at + i + 1_000, "shop": "a", "urgent": bool(i % 2)}))
    events.sort(key=lambda event: event[0])
    world = lived(DESK, 0)
    for known_ms, name, data in events:
        world.publish(name, data, at=known_ms)
    rows = {
        event.name: archived(event, [raw(i, known_ms, name, data) for i, (known_ms, name, data) in enumerate(events) if name == event.name])
        for event in (OPENED, CLOSED)
    }
    return world, rows


def told(table: pa.Table, archives: dict[str, pa.Table]) -> dict[str, tuple[int, int]]:
    """How many values of each kind were compared, and how many differ."""
    model = DESK.models["urgent"]
    found = check_training_set(model, table, (archives["opened"], archives["closed"]), {"shops": archives["closed"]}, UNTIL_MS, 1_000, 0)
    return {one.what: (one.values, one.differ) for one in found}


@pytest.mark.slow
def test_rows_have_what_their_questions_carry() -> None:
    """A set as it is made has no difference, and lacks no refused question; each column that is changed in a row is told."""
    world, archives = lived_through()
    table = world.training_set("urgent").table()
    assert len(table) == TICKETS + 1
    found = told(table, archives)
    assert {what: differ for what, (_, differ) in found.items()} == dict.fromkeys(found, 0)
    assert found["questions: urgent"] == (TICKETS + 1, 0)
    assert found["requests: urgent"] == (4 * (TICKETS + 1), 0)
    others = {"note": "altered", "shop": "z", "pixels": base64(np.add(LISTED, 1e-6)), "amount": 0.25}
    for name, other in others.items():
        cells = [other if i == 7 else value for i, value in enumerate(table[name].to_pylist())]
        changed = table.set_column(table.column_names.index(name), name, pa.array(cells, table[name].type))
        assert told(changed, archives)["requests: urgent"] == (4 * (TICKETS + 1), 1), name


@pytest.mark.parametrize("value", [json.dumps(LISTED), b64encode(np.array(LISTED, "<f4").tobytes()).decode()])
def test_a_tensor_is_its_numbers(value: str) -> None:
    """As float32, however it is written."""
    assert as_requested(PIXELS, value) == np.array(LISTED, "<f4").ravel().tolist()


@pytest.mark.parametrize(
    ("request_", "value"),
    [
        *((PIXELS, value) for value in (None, "", "??", "[[1,2,3],[1,2,NaN]]", "[1,2,3,4,5,6]", "[[1,2,3],[1,2,true]]", "[[1,2,3],[1,2,1e39]]", "[")),
        (tm.Words("note"), "é" * (WORDS_BYTES // 2 + 1)),
        (tm.Request("amount"), 1e39),
        (tm.Request("amount"), float("nan")),
    ],
)  # fmt: skip
def test_what_a_request_would_be_refused_for(request_: tm.Request, value: Any) -> None:
    """So that its question is no example."""
    with pytest.raises(UnfitValue):
        as_requested(request_, value)


def test_what_is_missing_or_true() -> None:
    """Missing is missing but of a tensor; a truth value is a number."""
    assert as_requested(tm.Words("note"), None) is None
    assert as_requested(tm.Request("amount"), None) is None
    assert as_requested(tm.Request("member", bool), True) == 1.0
    assert as_requested(tm.Words("note"), "é" * (WORDS_BYTES // 2)) == "é" * (WORDS_BYTES // 2)
