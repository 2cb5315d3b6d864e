"""Small disks: full while they are filled, with their old room afterwards, gone in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.injections.disks import cannot_mount, filled, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder where one can be mounted."""
    if reason := cannot_mount(tmp_path):
        pytest.skip(reason)
    return tmp_path / "disk"


def test_full_and_free_again(disk: Path) -> None:
    """Not a byte fits while it is filled; what was there stays, and there is room afterwards."""
    with small_disk(disk, 1):
        (disk / "kept").write_bytes(b"x" * 1000)
        with filled(disk) as free_bytes:
            assert free_bytes > 900_000
            with pytest.raises(OSError, match="No space left"):
                (disk / "more").write_bytes(b"x" * 5000)
        (disk / "more").write_bytes(b"x" * 5000)
        assert (disk / "kept").read_bytes() == b"x" * 1000
    assert not list(disk.iterdir())


def test_only_a_disk_of_its_own_is_filled(tmp_path: Path) -> None:
    """An ordinary folder is never filled: it would be everybody's disk."""
    with pytest.raises(AssertionError, match="not to be filled"), filled(tmp_path):
        pass
