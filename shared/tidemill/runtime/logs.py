"""Log lines of a process: one JSON object per line on stderr (coloured text on a terminal), from our code and from libraries.

    configure("ingestion")
    log = get_logger(__name__)
    log.info("batch folded", events=500, view="origin_delays")
    with bound(request_id="r-1"):       # every line inside carries it, in this task and its children
        ...

They go to the real stderr of the process, so it also works where a framework (Faust) replaces `sys.stdout` and `sys.stderr`.
There, start the worker with `redirect_stdouts=False, override_logging=False`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from typing import Any, TextIO

import msgspec
import structlog
from structlog.contextvars import bound_contextvars as bound
from structlog.typing import FilteringBoundLogger, Processor

__all__ = ["bound", "configure", "get_logger"]

_QUIET = {"aiokafka": logging.WARNING, "httpx": logging.WARNING, "httpcore": logging.WARNING, "uvicorn.access": logging.WARNING}

# Without the values of variables: one of them may be a password, and they make a line of ten kilobytes.
_TRACES = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20))

REPEAT_SECONDS = 10.0


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `module=name`. It may be made at import: a later `configure` applies to it."""
    logger: FilteringBoundLogger = structlog.get_logger(module=name)
    return logger


def configure(service: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Set up logging for this process; lines carry `service`. A second call replaces the first.

    `stream` is where lines go (default: the process's real stderr).
    """
    out = stream or sys.__stderr__ or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *(_for_people() if out.isatty() else _for_machines(service)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [*(h for h in root.handlers if not isinstance(h, _ToStructlog)), _ToStructlog()]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, quiet))
    logging.captureWarnings(True)


def _for_machines(service: str) -> list[Processor]:
    def in_order(_logger: Any, _method: str, event: Any) -> Any:
        return {"time": event.pop("time"), "level": event.pop("level"), "service": service, "message": event.pop("event"), **event}

    return [_TRACES, in_order, structlog.processors.JSONRenderer(serializer=_json)]


def _for_people() -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _json(event: Any, **_: Any) -> str:
    """JSON of one line; a value that JSON does not know is written as its repr."""
    return msgspec.json.encode(event, enc_hook=repr).decode()


class _ToStructlog(logging.Handler):
    """Hands a standard-library record to structlog, so that all lines have one form.

    A library repeats itself while a server is away (aiokafka: 40 lines a second). So each statement logs one line in REPEAT_SECONDS at
    most; the next line of that statement says in `left_out` how many were left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[tuple[str, int], float] = {}
        self._left_out: Counter[tuple[str, int]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            place = (record.pathname, record.lineno)
            now = time.monotonic()
            if now - self._kept.get(place, -REPEAT_SECONDS) < REPEAT_SECONDS:
                self._left_out[place] += 1
                return
            self._kept[place] = now
            more = {"left_out": left_out} if (left_out := self._left_out.pop(place, 0)) else {}
            get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info or None, **more)
        except Exception:
            self.handleError(record)
