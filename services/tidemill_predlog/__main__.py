"""Prediction logging as a process: python -m tidemill_predlog."""

from __future__ import annotations

import asyncio
import sys

from tidemill.runtime.entry import service_main
from tidemill_predlog.app import run
from tidemill_predlog.settings import PredictionLogSettings


def main() -> None:
    """Log and join until SIGTERM."""
    asyncio.run(run(PredictionLogSettings.load()))


if __name__ == "__main__":
    sys.exit(service_main("predlog", main))
