"""Drift detection as a process: python -m tidemill_drift."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_drift.app import build
from tidemill_drift.settings import DriftSettings


def main() -> int:
    """Watch until SIGTERM; returns the exit code."""
    return run_service("drift", DriftSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
