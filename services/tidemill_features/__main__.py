"""Feature computation as a process: python -m tidemill_features."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import uvloop

from tidemill.runtime.entry import run_service
from tidemill_features.app import build
from tidemill_features.settings import FeaturesSettings


def main() -> int:
    """Fold until SIGTERM; returns the exit code."""
    gc.set_threshold(200_000, 20, 100)  # a slice makes thousands of objects and no cycles; a full collection visits every cached entity
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # Faust makes a loop of its own for the consumer's thread
    return run_service("features", FeaturesSettings, build)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Faust's consumer thread is no daemon: while Kafka is away it would keep the process alive
