"""A training set of 100,000 labels over 1,000,000 archived events of 10,000 cards: 18 features in three windows, recomputed from the events.

    python -m benchmarks.training

Beside it, if `make peers` was run: Feast's DuckDB store, which joins ten columns that are computed already. Each runs as a process; memory is
the largest sum over that process and its children, looked at twenty times a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.figures import Figure

from tidemill.archive.columns import EXTRA, ID, KNOWN, MOMENT, OFFSET, PARTITION, TIME, TOPIC, event_folder, table_schema
from tidemill.declarations import Event
from tidemill.declarations.project import load_project
from tidemill.offline.store import OfflineStore
from tidemill.training.dataset import build

PROJECT = str(Path(__file__).with_name("training_project.py"))
PEERS = Path(".venv-peers/bin/python")
CARDS, START_MS, SPAN_MS = 10_000, 1_767_225_600_000, 90 * 86_400_000
LOOK_SECONDS = 0.05


def main(folder: Path) -> None:
    """Builds the set once, from the archive to the table; prints the seconds."""
    project = load_project(PROJECT)
    began = time.monotonic()
    until_ms = START_MS + SPAN_MS + 1
    found = build(
        project, PROJECT, project.models["fraud"], OfflineStore(folder / "offline"), until_ms, lambda _: None, folder / "asked.parquet"
    )
    assert found.table().num_rows == pq.read_metadata(folder / "labels.parquet").num_rows
    print(time.monotonic() - began, flush=True)


def prepare(folder: Path, events: int, labels: int) -> None:
    """Writes the archive and the label rows of both."""
    draw = np.random.default_rng(1)
    times_ms, cards = np.sort(START_MS + draw.integers(0, SPAN_MS, events)), draw.integers(0, CARDS, events)
    names, amounts = pa.array([f"c{card}" for card in cards]), draw.gamma(2.0, 20.0, events)
    moments = pa.array(times_ms * 1000).cast(MOMENT)
    event = load_project(PROJECT).events["bench.paid"]
    own = {
        TOPIC: pa.repeat(pa.scalar(event.topic), events), PARTITION: pa.repeat(pa.scalar(0, pa.int64()), events),
        OFFSET: pa.array(np.arange(events)), KNOWN: moments, TIME: moments, ID: pa.nulls(events, pa.string()), EXTRA: pa.nulls(events, pa.string()),
    }  # fmt: skip
    archive(folder, event, own | {"card": names, "at": pa.array(times_ms), "amount": pa.array(amounts)})
    pq.write_table(
        pa.table({"card": names, "ts": moments} | {f"f{i}": pa.array(draw.normal(size=events)) for i in range(10)}),
        folder / "features.parquet",
    )
    asked_ms, asked = START_MS + draw.integers(0, SPAN_MS, labels), pa.array([f"c{card}" for card in draw.integers(0, CARDS, labels)])
    asked_at, label = pa.array(asked_ms * 1000).cast(MOMENT), pa.array(draw.integers(0, 2, labels))
    pq.write_table(pa.table({"card": asked, "event_timestamp": asked_at, "label": label}), folder / "labels.parquet")
    limits = pa.array(draw.gamma(2.0, 20.0, labels))
    pq.write_table(pa.table({"card": asked, "time": asked_at, "label": label, "limit": limits}), folder / "asked.parquet")


def archive(folder: Path, event: Event, columns: dict[str, pa.Array]) -> None:
    """The events as the archive has them, in ten commits."""
    schema = table_schema(event)
    rows = pa.table([columns[name] for name in schema.names], schema)
    table, part = OfflineStore(folder / "offline").counted_table(event_folder(event.name), schema), -(-len(rows) // 10)
    for start in range(0, len(rows), part):
        table.append(rows.slice(start, part), {})


def measured(command: Sequence[str]) -> tuple[float, float]:
    """The seconds that a process printed, and the most memory that it and its children held, in MB."""
    child, most = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), 0
    watched = psutil.Process(child.pid)
    while child.poll() is None:
        most = max(most, _held(watched))
        time.sleep(LOOK_SECONDS)
    printed, complaints = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: {complaints[-2000:]}")
    return float(printed.split()[-1]), most / 1e6


def _held(process: psutil.Process) -> int:
    held = 0
    try:
        for each in (process, *process.children(recursive=True)):
            held += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended while we looked
    return held


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Seconds and memory."""
    events, labels = (100_000, 10_000) if quick else (1_000_000, 100_000)
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), events, labels)
        seconds, megabytes = measured([sys.executable, "-m", "benchmarks.training", name])
        peer = measured([str(PEERS), "-P", "benchmarks/feast_peer.py", name]) if PEERS.exists() else None
    what = f"training set, {labels:,} labels over {events:,} events"
    yield Figure(what, seconds, "s", {} if peer is None else {"Feast, DuckDB store": peer[0]})
    yield Figure(f"{what}: memory", megabytes, "MB", {} if peer is None else {"Feast, DuckDB store": peer[1]})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        for figure in figures():
            print(figure, flush=True)
