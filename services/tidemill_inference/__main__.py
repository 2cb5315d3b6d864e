"""Inference as a process: python -m tidemill_inference."""

from __future__ import annotations

import sys

from tidemill.errors import TidemillError
from tidemill.http import run
from tidemill.logs import configure, get_logger
from tidemill.project import load_project
from tidemill_inference.app import create_app
from tidemill_inference.settings import InferenceSettings


def main() -> int:
    """Serve until SIGTERM; 1 when it cannot start."""
    configure("inference")
    try:
        settings = InferenceSettings.load()
        run(create_app(load_project(settings.project.project), settings), settings.http)
    except TidemillError as error:
        get_logger(__name__).error("cannot start", reason=error.message, mend=error.mend)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
