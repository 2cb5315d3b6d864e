"""How every service starts and ends as a process."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tidemill.errors import TidemillError
from tidemill.runtime import exits, metrics
from tidemill.runtime.logs import configure, get_logger
from tidemill.runtime.service import Service
from tidemill.runtime.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)
Loop = Callable[[Coroutine[Any, Any, None]], Any]


def run_service(name: str, settings: type[S], build: Callable[[S], Service], loop: Loop = asyncio.run) -> int:
    """Reads and logs the settings of a service, builds its parts, and runs them until SIGTERM. Returns the exit code.

    `loop`: `asyncio.run` or `uvloop.run`.
    """

    def run() -> None:
        found = settings.load()
        get_logger(f"tidemill_{name}").info("settings", **found.masked())
        service = build(found)
        gc.collect()
        gc.freeze()  # what was imported stays: no later collection has to look at it
        os.nice(found.priority.nice)  # not before: on a busy machine a nice process needs minutes for its imports
        loop(service.run())

    return service_main(name, run)


def service_main(name: str, run: Callable[[], None]) -> int:
    """Runs a service until it ends. Returns the exit code: 0 after SIGTERM; 1, after logging cause and mend, when it cannot go on."""
    configure(name)
    metrics.begin(name)
    exits.begin(name)
    code = _code(name, run)
    exits.end("failed" if code else None)
    return code


def _code(name: str, run: Callable[[], None]) -> int:
    log = get_logger(f"tidemill_{name}")
    try:
        run()
    except TidemillError as error:
        log.error("service ends", reason=error.message, mend=error.mend)
        return 1
    except Exception as error:  # unexpected: the trace says where it arose; the supervisor starts the process again
        log.error("service ends", exc_info=error)
        return 1
    return 0
