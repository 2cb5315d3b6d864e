"""Feast's DuckDB store as a peer of training sets: the newest of each card's rows before each label, ten columns that are computed already.

It holds its own versions of packages, so it lives in an environment of its own (`make peers`) and runs as a process:

    .venv-peers/bin/python -P benchmarks/feast_peer.py FOLDER

`-P`: beside this file lies another `requests`. FOLDER has features.parquet (card, ts, f0 to f9) and labels.parquet (card, event_timestamp, label). Prints the seconds.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.data_format import ParquetFormat
from feast.types import Float64
from feast.value_type import ValueType


def main() -> None:
    """Joins once, from the files to a data frame."""
    folder = Path(sys.argv[1])
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    card = Entity(name="card", join_keys=["card"], value_type=ValueType.STRING)
    view = FeatureView(
        name="amounts",
        entities=[card],
        ttl=timedelta(days=7),
        schema=[Field(name=f"f{i}", dtype=Float64) for i in range(10)],
        source=FileSource(path=str(folder / "features.parquet"), timestamp_field="ts", file_format=ParquetFormat()),
    )
    store.apply([card, view])
    began = time.monotonic()
    labels = pd.read_parquet(folder / "labels.parquet")
    found = store.get_historical_features(labels, [f"amounts:f{i}" for i in range(10)]).to_df()
    assert len(found) == len(labels)
    print(time.monotonic() - began, flush=True)


if __name__ == "__main__":
    main()
