"""Inference as a process: python -m tidemill_inference."""

from __future__ import annotations

import sys

from tidemill.entry import service_main
from tidemill.http import run
from tidemill.project import load_project
from tidemill_inference.app import create_app
from tidemill_inference.settings import InferenceSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = InferenceSettings.load()
    run(create_app(load_project(settings.project.project), settings), settings.http)


if __name__ == "__main__":
    sys.exit(service_main("inference", main))
