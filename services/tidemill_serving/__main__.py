"""Feature serving as a process: python -m tidemill_serving."""

from __future__ import annotations

import sys

import uvloop

from tidemill.declarations.project import load_project
from tidemill.runtime.entry import service_main
from tidemill.runtime.service import run_workers
from tidemill_serving.app import Service
from tidemill_serving.settings import ServingSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = ServingSettings.load()
    service = Service(load_project(settings.project.project), settings.redis)
    uvloop.run(run_workers(service.app, settings.http, service.run(), [], service.board))


if __name__ == "__main__":
    sys.exit(service_main("serving", main))
