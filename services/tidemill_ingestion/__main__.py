"""Ingestion as a process: python -m tidemill_ingestion."""

from __future__ import annotations

import sys

import uvloop

from tidemill.errors import TidemillError
from tidemill.logs import configure, get_logger
from tidemill.project import load_project
from tidemill_ingestion.app import Ingestion
from tidemill_ingestion.settings import IngestionSettings


def main() -> int:
    """Run until SIGTERM or SIGINT; 1 when it cannot start or cannot go on."""
    configure("ingestion")
    try:
        settings = IngestionSettings.load()
        uvloop.run(Ingestion(settings, load_project(settings.project.project)).run())
    except TidemillError as error:
        get_logger(__name__).error("ingestion ends", reason=error.message, mend=error.mend)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
