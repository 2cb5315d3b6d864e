"""The offline writer as a process: python -m tidemill_offline."""

from __future__ import annotations

import asyncio
import sys

from tidemill.runtime.entry import service_main
from tidemill_offline.app import run
from tidemill_offline.settings import OfflineWriterSettings


def main() -> None:
    """Write until SIGTERM."""
    asyncio.run(run(OfflineWriterSettings.load()))


if __name__ == "__main__":
    sys.exit(service_main("offline", main))
