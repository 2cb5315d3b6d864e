"""The golden store: what a running system once stored, as files, and what was read from it then.

`store/redis.json` has every key and value of the online store, `store/offline/` the tables and the models, `store/pinned.json` what the code
that wrote them read from them. Whatever the code becomes, it must load, serve and replay this store.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from deltalake import DeltaTable

from tidemill import FeatureView
from tidemill.declarations.project import Project, load_project
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import entity_key, partition_of
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import stored_artifact
from tidemill.models.engine import Engine
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import fence_key, state_key
from tidemill.proof.replay import logged

FOLDER = Path(__file__).parent
STORE = FOLDER / "store"
OFFLINE = STORE / "offline"
ZONES: list[Any] = ["north", "süd", "centre", "nowhere"]
DRIVERS: list[Any] = [0, 1, 2, 3, 4, 5, 99]
HOUR_MS = 3_600_000
PLAYED_UNTIL_MS = 1_767_225_600_000 + 10 * HOUR_MS
TIMES_MS = [PLAYED_UNTIL_MS + hours * HOUR_MS for hours in (-8, 0, 1, 3, 30)]
REQUESTS: list[dict[str, Any]] = [
    {
        "features": [f"{view}:{name}" for view, names in features.items() for name in names],
        "entities": {"zone": (ZONES * 2)[:7], "driver_id": DRIVERS},
        "as_of": time_ms,
        "full_feature_names": True,
    }
    for time_ms in TIMES_MS
    for features in [
        {
            "zones": ["count_1h", "count_6h", "mean_tip_1h", "std_fare_6h", "tipped_6h", "last_tip", "age_note_6h"],
            "drivers": ["count", "max_fare", "min_tip", "age"],
            "orders": ["count_30m", "sum_distance_2h"],
        }
    ]
] + [{"feature_service": "big_tip", "entities": {"zone": ["north"], "driver_id": [3]}, "as_of": PLAYED_UNTIL_MS}]


@cache
def golden() -> Project:
    """The project of the store."""
    return load_project(FOLDER)


def text_of(data: bytes) -> str:
    """Bytes as they stand in a JSON file."""
    return base64.b64encode(data).decode()


def online() -> dict[bytes, bytes]:
    """Every key of the online store."""
    found = json.loads((STORE / "redis.json").read_text())
    return {key.encode(): base64.b64decode(value) for key, value in found.items()}


def pinned() -> dict[str, Any]:
    """What was read from the store when it was made."""
    found: dict[str, Any] = json.loads((STORE / "pinned.json").read_text())
    return found


def all_read(values: dict[bytes, bytes], root: Path) -> dict[str, Any]:
    """All that is pinned but the answers of feature serving."""
    return {
        "keys": sorted(key.decode() for key in values),
        "definitions": {view.name: ViewKernel(view).definition for view in golden().views.values()},
        "fences": fences(values),
        "features": features(values),
        "tables": tables(root),
        "outputs": outputs(root),
    }


def fences(values: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """The fences by log and partition, field by field."""
    found = {}
    for view in golden().views.values():
        for partition in range(view.partitions):
            fence = Fence.decode(values[fence_key(golden().name, view.log, partition)])
            fields = {name: getattr(fence, name) for name in fence.__struct_fields__}
            found[f"{view.log}[{partition}]"] = fields | {"sources": sorted([*pair] for pair in fence.sources.items())}
    return found


def entities(values: dict[bytes, bytes]) -> Iterator[tuple[FeatureView, Any, bytes]]:
    """Every stored entity of every view, with its value."""
    for view in golden().views.values():
        for entity in ZONES if view.key.name == "zone" else DRIVERS:
            key = entity_key(entity)
            value = values.get(state_key(golden().name, view.log, partition_of(key, view.partitions), key))
            if value is not None:
                yield view, entity, value


def features(values: dict[bytes, bytes]) -> dict[str, list[Any]]:
    """The features of every stored entity at several times, by log and entity: values by name, time of the newest event, whether complete."""
    found = {}
    for view, entity, value in entities(values):
        kernel, names = ViewKernel(view), [feature.name for feature in view.served]
        readings = [kernel.read(value, time_ms) for time_ms in TIMES_MS]
        found[f"{view.log} {entity}"] = [
            [dict(zip(names, map(number, reading.values), strict=True)), reading.newest_ms, reading.complete] for reading in readings
        ]
    return found


def number(value: float) -> float | None:
    """A number as JSON can hold it."""
    return None if math.isnan(value) else value


def table_names() -> list[str]:
    """The tables of the offline store."""
    return [*(f"views/{view.log}" for view in golden().views.values()), "requests", "outcomes", "predictions", "results"]


def tables(root: Path) -> dict[str, Any]:
    """Of each table the columns with their types, how many rows it has, its counters, and its first and last row."""
    found = {}
    for name in table_names():
        rows = OfflineStore(root).scan(name)
        stored = DeltaTable(root / name)
        found[name] = {
            "columns": {field.name: str(field.type) for field in rows.schema},
            "rows": len(rows),
            "description": stored.metadata().description,
            "counters": {counter: stored.transaction_version(counter) for counter in counters(root / name)},
            "ends": [{key: plain(value) for key, value in rows.slice(i, 1).to_pylist()[0].items()} for i in (0, len(rows) - 1)],
        }
    return found


def counters(table: Path) -> list[str]:
    """The names of a table's counters, from its log."""
    lines = [json.loads(line) for path in (table / "_delta_log").glob("*.json") for line in path.read_text().splitlines()]
    return sorted({line["txn"]["appId"] for line in lines if "txn" in line})


def plain(value: Any) -> Any:
    """A cell as JSON can hold it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return number(value) if isinstance(value, float) else value


def versions(root: Path) -> list[tuple[str, str]]:
    """The stored model versions."""
    return sorted((path.parent.parent.name, path.parent.name) for path in root.glob("models/*/*/manifest.json"))


def outputs(root: Path) -> dict[str, list[float]]:
    """What each model version gives for rows of its own: of the logged predictions' width, from all missing to large numbers."""
    found = {}
    for model, version in versions(root):
        artifact = stored_artifact(str(root), model, version)
        engine, width = Engine(artifact), len(artifact.manifest.inputs)
        rows = [np.full(width, np.nan, np.float32), *(np.arange(i, i + width, dtype=np.float32) * (i - 2) for i in range(6))]
        found[f"{model} {version}"] = [engine.predict(row) for row in rows]
    return found


def by_entity_and_tensor(root: Path) -> tuple[int, int]:
    """How many predictions were logged for entities and for tensors."""
    predictions = logged(OfflineStore(root))
    return sum(bool(item.entities) for item in predictions), sum(not item.entities for item in predictions)
