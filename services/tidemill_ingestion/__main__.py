"""Ingestion as a process: python -m tidemill_ingestion."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_ingestion.app import build
from tidemill_ingestion.settings import IngestionSettings


def main() -> int:
    """Route and answer until SIGTERM; returns the exit code."""
    return run_service("ingestion", IngestionSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
