"""Drift detection as a process: python -m tidemill_drift."""

from __future__ import annotations

import asyncio
import sys

from tidemill.errors import TidemillError
from tidemill.logs import configure, get_logger
from tidemill_drift.app import run
from tidemill_drift.settings import DriftSettings


def main() -> int:
    """Watch until SIGTERM; 1 when it cannot start."""
    configure("drift")
    try:
        asyncio.run(run(DriftSettings.load()))
    except TidemillError as error:
        get_logger(__name__).error("cannot start", reason=error.message, mend=error.mend)
        return 1
    except Exception:
        get_logger(__name__).exception("ended by an unexpected error; the position kept in Kafka is where the next run begins")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
