"""The offline writer as a process: python -m tidemill_offline."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_offline.app import build
from tidemill_offline.settings import OfflineWriterSettings


def main() -> int:
    """Write until SIGTERM; returns the exit code."""
    return run_service("offline", OfflineWriterSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
