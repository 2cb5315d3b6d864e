"""The catalogue as a whole, and the small acts of damage that need no server."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pyarrow as pa
import pytest
from tests.faults.injections import models, offline, refusals
from tests.faults.injections.catalogue import CATALOGUE, RARE, STATEFUL
from tests.faults.injections.hooked import COMMANDS, points
from tests.faults.injections.injection import Missed, until
from tests.faults.injections.rows import INVARIANTS, REFUSED, ROWS
from tests.faults.injections.valkey import cut_tail

from tidemill.local.services import SERVICES
from tidemill.offline.delta import CountedTable
from tidemill.offline.torn import torn_commit

PROCESSES = {"kafka", "valkey", *COMMANDS, *(service.name for service in SERVICES)}
NEEDS = {"redis proxy", "kafka proxy", "hooks", "valkey disk", "kafka disk", "offline disk", "model", "operator"}
TABLE = pa.schema([("offset", pa.int64())])


def test_every_injection_says_what_it_is_for() -> None:
    """Names differ; targets are processes, needs parts of a rig, rows and invariants those of the matrix."""
    names = [injection.name for injection in CATALOGUE]
    assert len(set(names)) == len(names)
    for injection in CATALOGUE:
        assert set(injection.targets) <= PROCESSES, injection.name
        assert injection.needs <= NEEDS, injection.name
        assert injection.invariants, injection.name
        assert set(injection.invariants) <= set(INVARIANTS), injection.name
        assert injection.rows, injection.name
        assert set(injection.rows) <= set(ROWS), injection.name


def test_every_row_of_the_matrix_has_an_injection() -> None:
    """What can strike a running system is in the catalogue; the rest is among the refusals, or a matter of traffic."""
    assert {row for injection in CATALOGUE for row in injection.rows} == set(ROWS)
    assert {
        row for text in map(str, (getattr(refusals, name).__doc__ for name in dir(refusals))) for row in re.findall(r"Row (\d+)", text)
    } == set(REFUSED)


def test_long_ones_are_for_the_soak() -> None:
    """What takes longer than a quarter of a minute or so is not for every run."""
    assert all(injection.seconds < 20 or injection.soak for injection in CATALOGUE)
    assert any(injection.soak for injection in CATALOGUE)


def test_every_point_that_is_reached_often_is_struck() -> None:
    """Each service is killed at each of its points, but for those it seldom comes by."""
    names = {injection.name for injection in CATALOGUE}
    for service in STATEFUL:
        for point in points(service):
            assert (f"{service}: killed {point}" in names) is (point not in RARE)


@pytest.mark.parametrize("seed", range(12))
def test_a_torn_commit_shows_and_heals(tmp_path: Path, seed: int) -> None:
    """However it is torn, the table cannot be taken for whole, and its writer begins again before that commit."""
    log = CountedTable(str(tmp_path / "t"), TABLE, description="")
    for first in range(3):
        log.append(pa.record_batch([pa.array([first])], TABLE), {"a": (first, first + 1)})
    offline.tear(offline.commits(tmp_path / "t")[-1], random.Random(seed))
    assert torn_commit(str(tmp_path / "t")) is not None
    assert CountedTable(str(tmp_path / "t"), TABLE, description="").counter("a") == 2


def test_a_lost_data_file(tmp_path: Path) -> None:
    """The newest file is gone, and only that."""
    log = CountedTable(str(tmp_path / "t"), TABLE, description="")
    log.open()
    with pytest.raises(Missed):
        refusals.lose_data_file(tmp_path / "t")
    for first in range(2):
        log.append(pa.record_batch([pa.array([first])], TABLE), {"a": (first, first + 1)})
    lost = refusals.lose_data_file(tmp_path / "t")
    assert lost.suffix == ".parquet"
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1


def test_a_share_of_a_file_is_cut(tmp_path: Path) -> None:
    """As much as was asked for, one byte at least, nothing of an empty file."""
    file = tmp_path / "x.incr.aof"
    file.write_bytes(b"0123456789")
    assert (cut_tail(file, 0.3), file.read_bytes()) == (3, b"0123456")
    assert (cut_tail(file, 0.001), file.read_bytes()) == (1, b"012345")
    file.write_bytes(b"")
    with pytest.raises(Missed):
        cut_tail(file, 0.5)


@pytest.mark.parametrize("how", ["cut short", "garbage", "another model's"])
def test_a_damaged_model_file_is_another(tmp_path: Path, how: str) -> None:
    """Whatever was done to it, the file is not what it was."""
    file, whole = tmp_path / "model.onnx", bytes(range(256))
    file.write_bytes(whole)
    models.damage(file, how, random.Random(1))
    assert file.read_bytes() != whole
    assert (len(file.read_bytes()) < 256) is (how == "cut short")


def test_waiting_says_for_what() -> None:
    """What never comes is named when the time is up."""
    until(lambda: True, "this")
    with pytest.raises(TimeoutError, match="still not: that"):
        until(lambda: False, "that", 0.05)
