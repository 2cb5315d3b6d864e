"""Prediction logging as a process: python -m tidemill_predlog."""

from __future__ import annotations

import asyncio
import sys

from tidemill.errors import TidemillError
from tidemill.logs import configure, get_logger
from tidemill_predlog.app import run
from tidemill_predlog.settings import PredictionLogSettings


def main() -> int:
    """Log and join until SIGTERM; 1 when it cannot start."""
    configure("predlog")
    try:
        asyncio.run(run(PredictionLogSettings.load()))
    except TidemillError as error:
        get_logger(__name__).error("cannot start", reason=error.message, mend=error.mend)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
