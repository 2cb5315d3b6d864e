"""The project under faults: measurements that say who sent them and as which in order, and cases that are opened, predicted and closed.

A file beside it, `stage.json`, says how often its views were changed, and whether the event was extended (see tests/faults/stages.py).
"""

import json
from pathlib import Path
from typing import Any

import tidemill as tm

PROJECT = "faults"
_file = Path(__file__).with_name("stage.json")
_stage = json.loads(_file.read_text()) if _file.exists() else {}
ENTITIES, PLACES = _stage.get("entities", 0), _stage.get("places", 0)
_graded = {"grade": float | None} if _stage.get("graded") else {}


def _windows(changes: int, *windows: str) -> list[str]:
    return [*windows, *([f"{10 + changes}m"] if changes else [])]


measured = tm.Event(
    "fault.measured",
    fields={"id": str, "at": int, "entity": int, "place": str, "value": float, "units": float | None, **_graded},
    time="at",
    id="id",  # "<producer>-<sequence>"
)

opened = tm.Event("fault.opened", fields={"case": str, "ask_at": int, "at": int, "entity": int, "place": str, "amount": float}, time="at")

closed = tm.Event("fault.closed", fields={"case": str, "at": int, "good": bool}, time="at")

# Sums of `value` depend on the order of folding to the last bit; `units` are quarters, whose sums do not.
entities = tm.FeatureView(
    "entities", measured, entity="entity", windows=_windows(ENTITIES, "1m", "10m", "lifetime"), tile="10s", dedupe=64,
    features=[
        tm.count(), tm.sum("units"), tm.max("units"), tm.sum("value"), tm.std("value", windows=("10m",)),
        *([tm.min("units", windows=("1m", "10m"))] if ENTITIES % 2 else []),
    ],
)  # fmt: skip

places = tm.FeatureView(
    "places", measured, entity="place", windows=_windows(PLACES, "1m", "10m"), tile="10s", dedupe="30m", partitions=2, erase="value > 99.9",
    features=[
        tm.count(), tm.sum("units"), tm.last("units", windows=("10m",)), tm.mean("value"), tm.rate("value > 50", name="high"),
        *([tm.max("grade"), tm.mean("grade")] if _graded and PLACES % 2 else []),
    ],
)  # fmt: skip


def pipeline() -> Any:
    """A logistic regression; scikit-learn is imported here, since only training needs it."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=500)
    )


ends_well = tm.Model(
    "ends_well",
    on=opened,
    at="ask_at",
    subject="case",
    inputs=[entities, places, tm.Request("amount")],
    outcome=tm.Outcome(closed, value="good", subject="case", within="30s"),
    pipeline=pipeline,
)
