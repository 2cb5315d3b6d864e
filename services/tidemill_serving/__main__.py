"""Feature serving as a process: python -m tidemill_serving."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_serving.app import build
from tidemill_serving.settings import ServingSettings


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    return run_service("serving", ServingSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
