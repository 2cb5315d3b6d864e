"""How many archived events per CPU second fill a new version of a view, with a real Delta archive and a real Kafka.

python -m benchmarks.fill
"""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from benchmarks.figures import Figure, spent

from tidemill import Event, FeatureView, count, mean, rate, sum
from tidemill.archive.columns import ID, KNOWN, MOMENT, OFFSET, PARTITION, TIME, TOPIC, event_folder
from tidemill.archive.rows import event_table
from tidemill.catalogue.definitions import NOTHING, ViewVersion, project_of
from tidemill.catalogue.plan import Surroundings, plan_of
from tidemill.declarations.project import Project
from tidemill.local.stack import Stack
from tidemill.offline.store import OfflineStore
from tidemill.operations.fill.job import Fill, Filled
from tidemill.runtime.settings import KafkaSettings

EVENT = Event("paid", {"at": int, "card": str, "shop": str, "amount": float, "no": str}, "at", id="no")
VIEW = FeatureView(
    "cards", EVENT, "card", [count(), sum("amount"), mean("amount"), rate("amount > 50", name="large")], windows=["1h", "24h"]
)
PROJECT = Project("bench", {"paid": EVENT}, {"cards": VIEW})
START_MS, ENTITIES, PARTITIONS = 1_700_000_000_000, 20_000, 4


def archive(store: OfflineStore, events: int) -> None:
    """An archive as its writer leaves it after a while: a hundred thousand events a file, known a little out of order."""
    chance, table = np.random.default_rng(1), event_table(PROJECT, EVENT)
    writer = store.counted_table(event_folder("paid"), table.schema)
    writer.open()
    for first in range(0, events, 100_000):
        numbers = np.arange(first, min(first + 100_000, events))
        known = START_MS + numbers + chance.integers(0, 2_000, len(numbers))
        columns = {
            TOPIC: ["paid"] * len(numbers), PARTITION: numbers % PARTITIONS, OFFSET: numbers // PARTITIONS, KNOWN: _moments(known),
            TIME: _moments(known - chance.integers(0, 5_000, len(numbers))), ID: [f"no{n}" for n in numbers],
            "at": known, "card": [f"card{n}" for n in chance.integers(0, ENTITIES, len(numbers))], "shop": ["north"] * len(numbers),
            "amount": chance.integers(0, 10_000, len(numbers)) / 100, "no": [f"no{n}" for n in numbers],
        }  # fmt: skip
        arrays = [
            pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(len(numbers), field.type)
            for field in table.schema
        ]
        writer.append(pa.table(arrays, table.schema), {"load:bench": (first, int(numbers[-1]) + 1)})


def _moments(times_ms: np.ndarray) -> pa.Array:
    return pa.array(times_ms * 1000).cast(MOMENT)


async def filled(kafka: KafkaSettings, store: OfflineStore) -> Filled:
    """Fills the view's first version."""
    plan = plan_of(NOTHING, PROJECT, START_MS, Surroundings({"paid"}))
    version: ViewVersion = plan.fills[0]
    return await Fill(project_of(plan.first, PROJECT.name), version, store, kafka, None, lambda *_: None).run()


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Events per second of this process's CPU time, and of wall time beside it."""
    events = 200_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "home", services=(), servers=("kafka",)) as stack:
        store = OfflineStore(f"{folder}/offline")
        archive(store, events)
        began = time.monotonic()
        done, cpu_seconds = spent(lambda: asyncio.run(filled(KafkaSettings(bootstrap_servers=stack.kafka), store)))
        seconds, peak_kb = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert done.archived == events
    beside = {"per second of wall time": events / seconds, "peak MB of the process": peak_kb / 1000}
    yield Figure("filling a view", events / cpu_seconds, "events per CPU second", beside)


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
