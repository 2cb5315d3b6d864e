"""Labels of one's own: times that nobody can mean."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count
from tidemill.errors import TidemillError
from tidemill.training.labels import read_labels

NOW_MS = 1_700_000_000_000


def model(**options: Any) -> Model:
    """A model that asks about shops."""
    event = Event("sold", {"at": int, "shop": str, "good": bool}, "at", **options)
    return Model(
        "m",
        event,
        "at",
        "shop",
        [FeatureView("shops", event, Entity("shop"), [count()], windows=["1h"])],
        Outcome(event, "good", "shop"),
        list,
    )


@pytest.mark.parametrize(
    ("time", "told"),
    [
        (NOW_MS // 1000, r"1700000000 ms is 1970-01-20: are these seconds\?"),
        (NOW_MS * 1000, r"are these microseconds\?"),
        (datetime(1970, 1, 20, 16, 13, 20), r"1700000000 ms is 1970-01-20: are these seconds\?"),
        ("soon", "has no usable value: soon"),
    ],
)
def test_a_unit_that_cannot_be_meant(tmp_path: Path, time: Any, told: str) -> None:
    """As numbers, or as timestamps that somebody made of them."""
    pq.write_table(pa.table({"time": [time], "label": [1], "shop": ["a"]}), tmp_path / "l.parquet")
    with pytest.raises(TidemillError, match=told):
        read_labels(model(), tmp_path / "l.parquet", NOW_MS)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_labels_that_are_texts(tmp_path: Path, suffix: str) -> None:
    """Where the outcome is a text, a label is one too, also one that looks like a number; it is its place among the texts."""
    event = Event("sold", {"at": int, "shop": str, "how": str}, "at")
    sells = Model("m", event, "at", "shop", [Request("shop", str)], Outcome(event, "how", "shop"), list)
    table = pa.table({"time": [NOW_MS - i for i in range(4)], "label": ["late", "7", "late", "on time"], "shop": list("abcd")})
    file = tmp_path / f"l.{suffix}"
    (pa.csv.write_csv if suffix == "csv" else pq.write_table)(table, file)
    rows = read_labels(sells, file, NOW_MS + 1)
    assert [rows.texts[int(label)] for label in rows.labels] == ["on time", "late", "7", "late"]
    assert rows.times_ms.tolist() == [NOW_MS - 3 + i for i in range(4)]
    pq.write_table(table.set_column(1, "label", pa.array(["late", None, "7", "a"])), tmp_path / "null.parquet")
    with pytest.raises(TidemillError, match="column 'label' cannot be used: row 2 has no usable value"):
        read_labels(sells, tmp_path / "null.parquet", NOW_MS + 1)


def test_the_switch_is_that_of_the_event(tmp_path: Path) -> None:
    """A model about events of long ago has labels of long ago."""
    pq.write_table(pa.table({"time": [-5_000], "label": [1], "shop": ["a"]}), tmp_path / "l.parquet")
    assert read_labels(model(earliest="1969-01-01"), tmp_path / "l.parquet", NOW_MS).times_ms.tolist() == [-5_000]
    with pytest.raises(TidemillError, match="before 1971-01-01"):
        read_labels(model(), tmp_path / "l.parquet", NOW_MS)
