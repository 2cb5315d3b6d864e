"""Drift detection as a process: python -m tidemill_drift."""

from __future__ import annotations

import asyncio
import sys

from tidemill.runtime.entry import service_main
from tidemill_drift.app import run
from tidemill_drift.settings import DriftSettings


def main() -> None:
    """Watch until SIGTERM."""
    asyncio.run(run(DriftSettings.load()))


if __name__ == "__main__":
    sys.exit(service_main("drift", main))
