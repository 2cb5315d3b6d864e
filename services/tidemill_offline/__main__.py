"""The offline writer as a process: python -m tidemill_offline."""

from __future__ import annotations

import asyncio
import sys

from tidemill.errors import TidemillError
from tidemill.logs import configure, get_logger
from tidemill_offline.app import run
from tidemill_offline.settings import OfflineWriterSettings


def main() -> int:
    """Write until SIGTERM; 1 when it cannot start."""
    configure("offline")
    try:
        asyncio.run(run(OfflineWriterSettings.load()))
    except TidemillError as error:
        get_logger(__name__).error("cannot start", reason=error.message, mend=error.mend)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
