"""Run feature computation: `python -m tidemill_features`."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

import uvloop

from tidemill.errors import TidemillError
from tidemill.logs import configure, get_logger
from tidemill.project import load_project
from tidemill.settings import HttpSettings, KafkaSettings, ProjectSettings, RedisSettings
from tidemill_features.app import serve
from tidemill_features.settings import FeaturesSettings

log = get_logger("tidemill_features")


def main() -> int:
    """The exit code: 0 after SIGTERM, 1 when it ended for a reason that the log names."""
    configure("features")
    try:
        project = load_project(ProjectSettings.load().project)
        settings = HttpSettings.load(), KafkaSettings.load(), RedisSettings.load(), FeaturesSettings.load()
        gc.set_threshold(50_000)  # a slice makes thousands of objects and no cycles
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # Faust makes a loop of its own for the consumer's thread
        asyncio.run(serve(project, *settings))
    except TidemillError as error:
        log.error("cannot run", reason=error.message, mend=error.mend)
        return 1
    except Exception as error:
        log.error("ended", exc_info=error)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # Faust's consumer thread is no daemon: while Kafka is away it would keep the process alive
