"""Results as lessons: the label that a line can learn, and whose outcomes they are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.retraining.made import became
from tests.retraining.test_line import taught, trained

from tidemill.models.artifact import save_artifact
from tidemill.offline.store import OfflineStore
from tidemill.runtime.settings import KafkaSettings
from tidemill_retraining.lessons import Lessons

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def lessons(root: str = "nowhere", until_ms: int = 0, **more: Any) -> Lessons:
    """Of a line of the model `late`."""
    return Lessons(KAFKA, "rides", OfflineStore(root), trained(taught(5).pipeline, **more), until_ms)


@pytest.mark.parametrize(
    ("output", "outcome", "label"),
    [
        ("probability", 1.0, 1.0), ("probability", 7.0, 1.0), ("probability", 0.0, 0.0), ("probability", math.nan, None), ("probability", "late", None),
        ("value", 7.5, 7.5), ("value", "late", None), ("probabilities", "red", 1.0), ("probabilities", 2.0, 0.0), ("probabilities", "blue", None),
        ("value", None, None),
    ],
)  # fmt: skip
def test_what_an_outcome_teaches(output: Any, outcome: float | str | None, label: float | None) -> None:
    """A condition, a value, or the place of a class that training had; anything else is left out."""
    assert lessons(output=output, classes=["2", "red"])._label(outcome) == label


def test_whose_outcomes_are_learned() -> None:
    """Those of the model that came, and that were not known when its line was trained."""
    found = lessons(until_ms=10)
    fresh = msgspec.structs.replace(became("a", "v1", 0.5, 1.0), known=11)
    assert found.concern(fresh)
    assert not found.concern(msgspec.structs.replace(fresh, known=10))
    assert not found.concern(msgspec.structs.replace(fresh, outcome=None))
    assert not found.concern(msgspec.structs.replace(fresh, model="early"))


def test_inputs_are_named_by_the_version_that_answered(tmp_path: Path) -> None:
    """Each version numbers its texts anew; one that is stored no more names none."""
    other = trained(taught(5).pipeline, version="v2")
    save_artifact(str(tmp_path), other, taught(5).pipeline)
    found = lessons(str(tmp_path))
    assert [column.name for column in found._columns_of("v2")] == ["size", "shop"]
    assert found._columns_of("v0") == ()
    assert found._stored([became("a", "v2", 0.5, 1.0)]) == {}
