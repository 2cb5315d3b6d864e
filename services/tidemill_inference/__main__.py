"""Inference as a process: python -m tidemill_inference."""

from __future__ import annotations

import sys

import uvloop

from tidemill.declarations.project import load_project
from tidemill.runtime.entry import service_main
from tidemill.runtime.service import run_workers
from tidemill_inference.app import Inference
from tidemill_inference.settings import InferenceSettings


def main() -> None:
    """Serve until SIGTERM."""
    settings = InferenceSettings.load()
    service = Inference(load_project(settings.project.project), settings)
    uvloop.run(run_workers(service.app, settings.http, service.run(), service.pulses, service.board))


if __name__ == "__main__":
    sys.exit(service_main("inference", main))
