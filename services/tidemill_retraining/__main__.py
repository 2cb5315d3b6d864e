"""Retraining as a process: python -m tidemill_retraining."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_retraining.app import build
from tidemill_retraining.settings import RetrainingSettings


def main() -> int:
    """Watch and retrain until SIGTERM; returns the exit code."""
    return run_service("retraining", RetrainingSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
