"""Rows of files as events: by field or as published, numbers of CSV files too."""

from __future__ import annotations

from typing import Any

import pytest
from tests.traffic.shops import MEASURED, PLACED, made

from tidemill.errors import TidemillError
from tidemill.traffic.recorded import recorded_rows


def row(**fields: Any) -> dict[str, Any]:
    """An order."""
    return {**next(act.row for act in made() if act.event == "placed"), **fields}


def test_texts_of_csv_files_become_what_they_mean() -> None:
    """Numbers, truths and nothing; what means nothing stays, so that it is refused as it would be in life."""
    (found, odd) = recorded_rows(
        PLACED, [row(amount="12.5", pieces="3", gift="true", coupon="", weight=""), row(amount="many", pieces=2)], "orders.csv"
    )
    assert (found["amount"], found["pieces"], found["gift"], found["coupon"], found["weight"]) == (12.5, 3, True, "", None)
    assert odd["amount"] == "many"
    assert type(recorded_rows(PLACED, [row(amount=12)], "x")[0]["amount"]) is float


def test_rows_may_be_as_they_are_published() -> None:
    """At their paths, times in their unit; names of fields come first, and what is not declared is left out."""
    (found,) = recorded_rows(MEASURED, [{"meta": {"at": 1_700_000_000, "type": "Measured"}, "shop-id": "s", "degrees": 3, "more": 1}], "x")
    assert found == {"at": 1_700_000_000_000, "shop": "s", "degrees": 3.0}
    (found,) = recorded_rows(MEASURED, [{"at": 5, "shop": "s", "degrees": 3.0}], "x")
    assert found["at"] == 5


def test_a_file_that_does_not_fit_is_told() -> None:
    """No row, or no such field."""
    with pytest.raises(TidemillError, match=r"orders.csv has no row"):
        recorded_rows(PLACED, [], "orders.csv")
    with pytest.raises(TidemillError, match="the first row has no 'shop'") as raised:
        recorded_rows(PLACED, [{"order": "o", "at": 1}], "orders.csv")
    assert "channel" in raised.value.mend
