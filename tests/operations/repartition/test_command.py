"""The command where no stack runs: it starts the servers it needs, and stops them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.offline.lake import ROOT

pytestmark = pytest.mark.integration


def test_it_brings_its_own_servers(tmp_path: Path) -> None:
    """With nothing running, Kafka is started from the folder's data and stopped again; an unknown view is named with those there are."""
    outside = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TIDEMILL_OFFLINE")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in outside},
        "TIDEMILL_HOME": str(tmp_path / "home"), "TIDEMILL_PROJECT": str(ROOT / "tests/live_project"),
        "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}", "COLUMNS": "200",
    }  # fmt: skip

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    code, output = run("repartition", "zones")
    assert (code, "nothing to copy: view zones has its records in zones.p2 already, or none" in output) == (0, True), output
    assert (tmp_path / "home/kafka").is_dir()
    assert "no stack runs" in run("status")[1]
    code, output = run("repartition", "zone")
    assert (code, "unknown view 'zone'; known: drivers, zones" in output) == (1, True), output
