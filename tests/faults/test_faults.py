"""The whole running system under faults: nothing lost, nothing doubled, no bit different, and everything recovers.

    TIDEMILL_SEED=7 TIDEMILL_TURN=1 pytest tests/faults/test_faults.py

One third of the kinds, chosen by the commit unless told; `make faults` runs all.
Seconds are not asserted but within which everything has to recover at all; what was found is written to .tidemill/faults.json.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.faults.__main__ import DEFAULT_SEED, THIRD
from tests.faults.report import Report
from tests.turn import turn

from tidemill.local.addresses import home_folder

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.last]
KINDS = 29  # of 31 or more; the others need small disks


def test_nothing_is_lost_doubled_or_different(capsys: pytest.CaptureFixture[str]) -> None:
    """Under a third of the faults of the matrix, checked while they strike and afterwards."""
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--seed",
        os.environ.get("TIDEMILL_SEED", str(DEFAULT_SEED)),
        "--third",
        str(1 + turn(3)),
    ]
    with capsys.disabled():
        code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr.fileno(), check=False).returncode  # a worker has no other way out
    report = msgspec.json.decode((home_folder() / "faults.json").read_bytes(), type=Report)
    assert code == 0, "\n".join([*report.findings, f"again: {report.command}"])
    wrong = (report.lost, report.doubled, report.different, report.predictions_missing, report.predictions_doubled, report.silences)
    assert wrong == (0, 0, 0, 0, 0, 0)
    assert report.kinds >= KINDS
    assert report.never == []
    assert report.faults >= THIRD.faults
    assert report.events >= THIRD.events
    assert report.checked["recomputed"] + report.checked["pruned"] >= report.predictions  # of a pruned version nothing is recomputed
    assert report.checked["recomputed"] > report.predictions / 2 > 0
    assert set(report.results) == {"joined", "never"}
    assert report.dead_letters > 0
    assert min(report.checked[name] for name in ("audited", "archived", "verified")) > 0
