"""How a service ends as a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from tidemill.runtime.entry import service_main
from tidemill.errors import SettingsError

def run():
    {body}

sys.exit(service_main("tried", run))
"""


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise SettingsError('PORT is not set', mend='set PORT')", 1, "set PORT"),
        ("raise RuntimeError('nobody thought of it')", 1, "nobody thought of it"),
    ],
)
def test_a_service_ends_with_a_code_and_says_why(body: str, code: int, said: str) -> None:
    """What ends a service stands in its log, with the mend where there is one, and its exit code tells."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert '"level":"error"' in done.stderr or code == 0
