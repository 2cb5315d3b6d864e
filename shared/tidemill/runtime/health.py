"""Whether a process is alive and ready, and why not: `/health/live`, `/health/ready` and `/metrics`.

board = HealthBoard("kafka", "redis")         # both count as missing until a report says they are up
board.up("kafka"); board.down("redis", "connection refused")
ops = OpsApp(board)                           # plain ASGI; a worker serves it alone, a FastAPI app includes it
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import msgspec

from tidemill.runtime import metrics
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

UNCHECKED: Final = "not checked yet"


class HealthBoard:
    """Named checks of one process. Any thread may report. A change is logged and sets the gauge `tidemill_dependency_up`.

    Ready means that every check is up. A process that answers is alive: its watchdog ends a process that is stuck.
    """

    def __init__(self, *checks: str) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str | None] = {}
        self._since: dict[str, float] = {}  # check -> since when it fails, monotonic seconds
        for check in checks:
            self.require(check)

    def require(self, check: str) -> None:
        """Add a check. The process is not ready before a report says that the check is up."""
        with self._lock:
            self._reasons.setdefault(check, UNCHECKED)
            self._since.setdefault(check, time.monotonic())
        metrics.DEPENDENCY_UP.labels(check).set(0)

    def forget(self, check: str) -> None:
        """Take a check away: what it was about is gone."""
        with self._lock:
            self._reasons.pop(check, None)
            self._since.pop(check, None)
        metrics.DEPENDENCY_UP.remove(check)

    def up(self, check: str) -> None:
        """Report that a check holds."""
        self.report(check, None)

    def down(self, check: str, reason: str | Exception) -> None:
        """Report that a check fails, with a reason for a person to read. As a partial it fits `supervise`."""
        self.report(check, str(reason) or type(reason).__name__)

    def report(self, check: str, reason: str | None) -> None:
        """Report a check: None when it holds, else the reason. As a partial it fits callbacks such as `RedisLink(on_change=...)`."""
        with self._lock:
            before = self._reasons.get(check, UNCHECKED)
            self._reasons[check] = reason
            if before is None or check not in self._since:
                self._since[check] = time.monotonic()
        if (before is None) != (reason is None) or before == UNCHECKED:
            metrics.DEPENDENCY_UP.labels(check).set(reason is None)
            if reason is None:
                log.info("check is up", check=check)
            else:
                log.warning("check is down", check=check, reason=reason)

    @property
    def missing(self) -> dict[str, str]:
        """The failing checks with their reasons; empty when ready."""
        with self._lock:
            return {check: reason for check, reason in self._reasons.items() if reason is not None}

    @property
    def ready(self) -> bool:
        """Whether every check holds."""
        return not self.missing

    def live_answer(self) -> tuple[int, bytes]:
        """HTTP status and JSON body of `/health/live`."""
        return 200, b'{"status":"alive"}'

    def ready_answer(self) -> tuple[int, bytes]:
        """HTTP status and JSON body of `/health/ready`: every check; for a failing one also the reason and the seconds since it fails."""
        missing = self.missing
        now = time.monotonic()
        with self._lock:
            names, since = sorted(self._reasons), dict(self._since)
        checks = {name: _failing(missing[name], now - since.get(name, now)) if name in missing else {"ok": True} for name in names}
        return (503 if missing else 200), msgspec.json.encode({"status": "unready" if missing else "ready", "checks": checks})


def _failing(reason: str, seconds: float) -> dict[str, Any]:
    return {"ok": False, "reason": reason, "for_seconds": round(seconds, 1)}
