"""Feature serving as a process: python -m tidemill_serving."""

from __future__ import annotations

import sys

from tidemill.entry import service_main
from tidemill.http import run
from tidemill.project import load_project
from tidemill_serving.app import create_app
from tidemill_serving.settings import ServingSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = ServingSettings.load()
    run(create_app(load_project(settings.project.project), settings.redis), settings.http)


if __name__ == "__main__":
    sys.exit(service_main("serving", main))
