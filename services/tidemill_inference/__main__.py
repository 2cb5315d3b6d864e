"""Inference as a process: python -m tidemill_inference."""

from __future__ import annotations

import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_inference.app import build
from tidemill_inference.settings import InferenceSettings


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    return run_service("inference", InferenceSettings, build, uvloop.run)


if __name__ == "__main__":
    sys.exit(main())
