"""Feature computation as a process: python -m tidemill_features."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import uvloop

from tidemill.declarations.project import load_project
from tidemill.runtime.entry import service_main
from tidemill.runtime.settings import HttpSettings, KafkaSettings, ProjectSettings, RedisSettings
from tidemill_features.app import serve
from tidemill_features.settings import FeaturesSettings


def main() -> None:
    """Fold until SIGTERM."""
    project = load_project(ProjectSettings.load().project)
    settings = HttpSettings.load(), KafkaSettings.load(), RedisSettings.load(), FeaturesSettings.load()
    gc.set_threshold(200_000, 20, 100)  # a slice makes thousands of objects and no cycles; a full collection visits every cached entity
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # Faust makes a loop of its own for the consumer's thread
    asyncio.run(serve(project, *settings))


if __name__ == "__main__":
    code = service_main("features", main)
    sys.stdout.flush()
    os._exit(code)  # Faust's consumer thread is no daemon: while Kafka is away it would keep the process alive
