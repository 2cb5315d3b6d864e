"""Results of predictions beside the archived outcomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from tests.verify.archive import Raw, archived

from tidemill.archive.columns import event_folder, table_schema
from tidemill.archive.erasure import Wanted, erase
from tidemill.declarations import Event, Model, Outcome, Request
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import RESULTS_SCHEMA
from tidemill.proof.verified_results import ResultsVerify
from tidemill.verify.results import check_results

T0 = 1_700_000_000_000
MINUTE = 60_000
TIPPED = Event("tipped", {"at": int, "who": str, "tip": float | None}, time="at")


def model(absent: float | None = None) -> Model:
    """Whether a tip of more than 2 comes within five minutes."""
    return Model("m", TIPPED, "at", "who", [Request("tip")], Outcome(TIPPED, "tip > 2", "who", within="5m", absent=absent), lambda: None)


def tipped(offset: int, known_ms: int, tip: float | None, who: str = "a", topic: str = "tipped") -> Raw:
    """An archived outcome."""
    return Raw(topic, 0, offset, T0 + known_ms, T0 + known_ms, None, {"at": T0 + known_ms, "who": who, "tip": tip})


def result(outcome: float | None, known_ms: int, time_ms: int = 0, who: str = "a", seq: int = 0) -> dict[str, Any]:
    """A row of the results."""
    return {
        "seq": seq,
        "prediction": f"p{seq}",
        "model": "m",
        "subject": who,
        "time": T0 + time_ms,
        "known": T0 + known_ms,
        "outcome": outcome,
    }


EVENTS = [
    tipped(0, 0, 9.0),  # at the time of the prediction: before it
    tipped(1, 1, None),  # no outcome
    tipped(2, 2, 9.0, topic="load:a"),  # loaded
    tipped(3, 10, 1.0),
    tipped(4, 20, 9.0),
    tipped(5, 5 * MINUTE + 1, 9.0),  # after the wait
]


@pytest.mark.parametrize(
    ("told", "absent", "differ", "undecided"),
    [
        (result(0.0, 10), None, 0, 0),
        (result(1.0, 10), None, 1, 0),  # another value
        (result(0.0, 11), None, 1, 0),  # no event of this moment
        (result(1.0, 0), None, 1, 0),
        (result(1.0, 2), None, 1, 0),
        (result(1.0, 5 * MINUTE + 1), None, 1, 0),
        (result(1.0, 20), None, 0, 1),  # it may have been read first
        (result(None, 5 * MINUTE), None, 0, 1),  # they may have been read too late
        (result(None, 5 * MINUTE, who="b"), None, 0, 0),
        (result(0.0, 5 * MINUTE, who="b"), 0.0, 0, 0),
        (result(0.0, 5 * MINUTE, who="b"), None, 1, 0),
        (result(None, 5 * MINUTE - 1, who="b"), None, 1, 0),
    ],
)
def test_a_result_is_an_outcome_within_the_wait(told: dict[str, Any], absent: float | None, differ: int, undecided: int) -> None:
    """The first one, where the order in which they were read cannot matter; and `absent`, or never, where there is none."""
    compared = check_results(model(absent), [told], archived(TIPPED, EVENTS))
    assert (compared.values, compared.differ, compared.undecided) == (1, differ, undecided)


@pytest.mark.parametrize(("told", "differ"), [("late", 0), ("on time", 1), (None, 1), ("l" * 256, 0)])
def test_a_result_may_be_a_text(told: str | None, differ: int) -> None:
    """As much of it as is kept."""
    event = Event("ended", {"at": int, "who": str, "how": str | None}, time="at")
    ends = Model("m", event, "at", "who", [Request("who", str)], Outcome(event, "how", "who", within="5m"), lambda: None)
    how = "l" * 300 if told == "l" * 256 else "late"
    raws = [
        Raw("ended", 0, i, T0 + i, T0 + i, None, {"at": T0 + i, "who": "a", "how": text})
        for i, text in ((8, None), (10, how), (12, "later"))
    ]
    row = result(None, 10) | {"label": told}
    assert check_results(ends, [row], archived(event, raws)).differ == differ


def test_an_example_has_the_outcomes() -> None:
    """What was told, what SQL says, and the subject's outcomes."""
    (example,) = check_results(model(), [result(1.0, 10)], archived(TIPPED, EVENTS)).examples
    assert (example.told, example.sql) == ("1.0, known 2023-11-14T22:13:20.010Z", "0.0, known 2023-11-14T22:13:20.010Z")
    assert [event["outcome"] for event in example.events] == [1.0, 0.0, 1.0, 1.0]


def test_results_of_the_offline_store(tmp_path: Path) -> None:
    """Drawn by chance, none where another model's came meanwhile; awaited until the archive has them, and passed over when it no longer can."""
    store = OfflineStore(tmp_path)
    table = store.counted_table("results", RESULTS_SCHEMA)
    table.open()
    rows = [result(0.0, 10, seq=seq) | {"version": "v", "output": 0.5, "status": "joined"} for seq in range(20)]
    rows[3]["outcome"] = 1.0
    table.append(pa.Table.from_pylist(rows, RESULTS_SCHEMA), {"seq": (0, 20)})
    archive = store.counted_table(event_folder("tipped"), table_schema(TIPPED))
    archive.open()
    archive.append(archived(TIPPED, EVENTS), {"tipped-0": (0, 6)})
    verify = ResultsVerify(model(), store, since=0, wait_seconds=0.0)
    assert len(verify.draw(4, Random(1))) == 4
    other = ResultsVerify(replace(model(), name="other"), store, since=0, wait_seconds=0.0)
    assert [other.draw(4, Random(seed)) for seed in range(4)] == [[]] * 4
    everything = [row for seed in range(9) for row in verify.draw(20, Random(seed))]
    assert {row["seq"] for row in everything} == set(range(20))
    drawn = [row for row in everything if row["seq"] in (3, 4)]
    found = verify.look(drawn, {0: 6})
    assert (found.checked, found.mismatched) == (len(drawn), sum(row["seq"] == 3 for row in drawn))
    assert verify.look(drawn, {0: 7}).left_out == {"lags": len(drawn), "forgotten": 0}
    assert verify.look(drawn, {0: 6}, kept_since_ms=T0 + 1).left_out["forgotten"] == len(drawn)
    assert ResultsVerify(model(), store, since=20, wait_seconds=0.0).draw(4, Random(1)) == []
    erase(store, Wanted.parse(TIPPED, "who=a"))
    found = verify.look(drawn, {0: 6})
    assert (found.checked, found.left_out["erased"]) == (0, len(drawn))
