"""Ingestion as a process: python -m tidemill_ingestion."""

from __future__ import annotations

import sys

import uvloop

from tidemill.declarations.project import load_project
from tidemill.runtime.entry import service_main
from tidemill_ingestion.app import Ingestion
from tidemill_ingestion.settings import IngestionSettings


def main() -> None:
    """Route and answer until SIGTERM."""
    settings = IngestionSettings.load()
    uvloop.run(Ingestion(settings, load_project(settings.project.project)).run())


if __name__ == "__main__":
    sys.exit(service_main("ingestion", main))
