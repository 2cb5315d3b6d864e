"""Long proofs are run in shares: one share at each commit, all of them in `make soak` and `make faults`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def turn(shares: int) -> int:
    """Which share is due, from 0 on: TIDEMILL_TURN if it is a number, else by the commit. A tree without git has always the first."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout
    told = os.environ.get("TIDEMILL_TURN", "all")
    return int(head.strip() or "0", 16) % shares if told == "all" else int(told) % shares


def due(shares: int, place: int) -> bool:
    """Whether a test that has this place among some shares is due; with TIDEMILL_TURN=all every one is."""
    return os.environ.get("TIDEMILL_TURN") == "all" or turn(shares) == place % shares
