"""Labels of one's own: times that nobody can mean."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidemill import Entity, Event, FeatureView, Model, Outcome, count
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


def test_the_switch_is_that_of_the_event(tmp_path: Path) -> None:
    """A model about events of long ago has labels of long ago."""
    pq.write_table(pa.table({"time": [-5_000], "label": [1], "shop": ["a"]}), tmp_path / "l.parquet")
    assert read_labels(model(earliest="1969-01-01"), tmp_path / "l.parquet", NOW_MS).times_ms.tolist() == [-5_000]
    with pytest.raises(TidemillError, match="before 1971-01-01"):
        read_labels(model(), tmp_path / "l.parquet", NOW_MS)
