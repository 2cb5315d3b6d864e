"""How every service starts and ends as a process."""

from __future__ import annotations

from collections.abc import Callable

from tidemill.errors import TidemillError
from tidemill.runtime import exits
from tidemill.runtime.logs import configure, get_logger


def service_main(name: str, run: Callable[[], None]) -> int:
    """Runs a service until it ends and returns its exit code: 0 after SIGTERM, 1 when it cannot start or go on, with cause and mend in its log."""
    configure(name)
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
    except Exception as error:  # nobody thought of it: the log says where, the supervisor starts the process again
        log.error("service ends", exc_info=error)
        return 1
    return 0
