"""A full disk stops the writer, not the table: it says so, keeps what is committed, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from tidemill.errors import OfflineUnavailable
from tidemill.offline.delta import CountedTable

SCHEMA = pa.schema([("offset", pa.int64()), ("noise", pa.binary())])
ROWS = 2000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, where mounting is allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def rows(first: int) -> pa.RecordBatch:
    """Rows that do not compress."""
    return pa.record_batch([pa.array(range(first, first + ROWS), pa.int64()), pa.array([os.urandom(100) for _ in range(ROWS)])], SCHEMA)


@pytest.mark.integration
def test_goes_on_when_there_is_room(small_disk: Path) -> None:
    """The commit that finds no room is refused as a whole; with more room the same handle writes it."""
    log = CountedTable(str(small_disk / "t"), SCHEMA, description="")

    def fill() -> None:
        for first in range(0, 100 * ROWS, ROWS):
            log.append(rows(first), {"a": (first, first + ROWS)})

    with pytest.raises(OfflineUnavailable, match="free space"):
        fill()
    first = CountedTable(str(small_disk / "t"), SCHEMA, description="").counter("a")
    assert first % ROWS == 0
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    log.append(rows(first), {"a": (first, first + ROWS)})
    found = DeltaTable(small_disk / "t").to_pyarrow_dataset().to_table(columns=["offset"])["offset"].to_pylist()
    assert sorted(found) == list(range(first + ROWS))
