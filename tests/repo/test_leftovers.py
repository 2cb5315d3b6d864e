"""A test that leaves something open fails by itself where the plugin is asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.sources import ROOT

INNER = """
import gc
import socket

import pytest

gc.disable()

@pytest.fixture
def left():
    yield
    cycle = [socket.socket()]
    cycle.append(cycle)

def test_leaves(left):
    pass

def test_is_innocent():
    gc.collect()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("options", "failed"), [([], ["test_is_innocent"]), (["-p", "tests.leftovers"], ["test_leaves"])])
def test_who_leaves_something_open_fails(tmp_path: Path, options: list[str], failed: list[str]) -> None:
    """Without the plugin it is the test in which garbage happens to be collected."""
    (tmp_path / "test_inner.py").write_text(INNER)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:asyncio", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.findall(r"^(?:FAILED|ERROR) test_inner\.py::(\w+)", done.stdout, re.MULTILINE) == failed, done.stdout + done.stderr
