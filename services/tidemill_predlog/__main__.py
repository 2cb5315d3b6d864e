"""Prediction logging as a process: python -m tidemill_predlog."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_predlog.app import build
from tidemill_predlog.settings import PredictionLogSettings


def main() -> int:
    """Log and join until SIGTERM; returns the exit code."""
    return run_service("predlog", PredictionLogSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
