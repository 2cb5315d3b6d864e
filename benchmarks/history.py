"""How many rows of history per CPU second `tidemill load` puts into the archive, by the format of the file, beside a plain copy into Delta.

python -m benchmarks.history
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from benchmarks.figures import Figure, spent
from deltalake import write_deltalake

from tidemill import Event
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import history_files
from tidemill.archive.load import Load
from tidemill.declarations.project import Project
from tidemill.offline.store import OfflineStore

FIELDS: dict[str, Any] = {
    "at": int, "trip": str, "zone": str, "driver": int, "fare": float, "km": float | None, "card": bool, "note": str | None,
}  # fmt: skip
START_MS = 1_700_000_000_000


def rows(count: int) -> pa.Table:
    """Trips, one every 100 ms, some without a note or a length."""
    chance, numbers = np.random.default_rng(1), np.arange(count)
    return pa.table({
        "at": START_MS + numbers * 100, "trip": [f"trip-{n}" for n in numbers], "zone": [f"zone {n}" for n in chance.integers(0, 200, count)],
        "driver": chance.integers(0, 5_000, count), "fare": chance.integers(0, 10_000, count) / 100,
        "km": pa.array(chance.random(count) * 30, mask=chance.random(count) < 0.1), "card": chance.random(count) < 0.5,
        "note": pa.array(["as booked"] * count, mask=chance.random(count) < 0.8),
    })  # fmt: skip


def write_lines(table: pa.Table, path: Path) -> None:
    """JSON lines."""
    with path.open("w") as file:
        for batch in table.to_batches(50_000):
            file.writelines(json.dumps(row) + "\n" for row in batch.to_pylist())


def loaded(path: Path, folder: Path, *, ids: bool = True) -> None:
    """Loads a file into an archive of its own."""
    fields = {name: kind for name, kind in FIELDS.items() if ids or name != "trip"}
    event = Event("trip", fields, "at", id="trip" if ids else None)
    project = Project("bench", {"trip": event}, {}, {})
    job = Load(project, event, OfflineStore(str(folder)), FileRules(), lambda *_: None)
    (file,) = history_files([path])
    job.check([file])
    report = job.run(file, lambda *_: None)
    assert not report.refused
    assert report.loaded


def copied(path: Path, folder: Path, read: Callable[[Path], pa.Table]) -> None:
    """Copies a file into a Delta table as it is."""
    write_deltalake(str(folder), read(path))


def figures(*, quick: bool = False) -> Iterator[Figure]:
    """Rows per second of CPU, by format."""
    count = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder, table = Path(name), rows(count)
        more = table.append_column("app", pa.array(["4.2"] * count)).append_column("tip", table["fare"])
        pq.write_table(table, folder / "a.parquet")
        pq.write_table(table.drop_columns(["trip"]), folder / "b.parquet")
        pc.write_csv(table, folder / "c.csv")
        write_lines(table, folder / "d.jsonl")
        write_lines(more, folder / "e.jsonl")
        del table, more
        reading: list[tuple[str, str, bool, Callable[[Path], pa.Table]]] = [
            ("Parquet", "a.parquet", True, pq.read_table), ("Parquet, ids made of the content", "b.parquet", False, pq.read_table),
            ("CSV", "c.csv", True, pc.read_csv), ("JSON lines", "d.jsonl", True, pj.read_json),
            ("JSON lines, two undeclared members", "e.jsonl", True, pj.read_json),
        ]  # fmt: skip
        for what, file, ids, read in reading:
            path = folder / file
            _, ours = spent(partial(loaded, path, folder / f"ours-{file}", ids=ids))
            _, plain = spent(partial(copied, path, folder / f"plain-{file}", read))
            yield Figure(
                f"loading history: {what}", count / ours, "rows per CPU second", {"pyarrow and delta-rs, unchecked": count / plain}
            )


if __name__ == "__main__":
    for figure in figures():
        print(figure, flush=True)
