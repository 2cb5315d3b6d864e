"""Processes of a stack that ended without being asked to: the supervisor begins each anew, so nothing else shows it. Read from the logs of the stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tidemill.local.processes import lines_at_end
from tidemill.local.said import in_words

_BEGIN = '"process": "supervisor"'
_EXITED = re.compile(r"^(\S+ \S+?),\d+ \w+ exited: (\S+) \((.*); not expected\)$")
_LAST_BYTES = 1_000_000


class EndedProcess(NamedTuple):
    """How often a process ended since the stack was started, when it did last (the machine's time), how, and the last error that it logged, if any."""

    name: str
    times: int
    last: str
    how: str
    error: str

    def __str__(self) -> str:
        """For a person."""
        times = "once" if self.times == 1 else f"{self.times} times"
        return f"{self.name} has ended {times}, last at {self.last} ({self.how}){f': {self.error}' if self.error else ''}; see: tidemill logs {self.name}"


def ended(logs: Path) -> list[EndedProcess]:
    """The processes that ended, by a folder of logs, the last first."""
    found: dict[str, EndedProcess] = {}
    for line in lines_at_end(logs / "supervisor.log", _LAST_BYTES):
        if _BEGIN in line:
            found.clear()
        if match := _EXITED.match(line):
            last, name, how = match.groups()
            found[name] = EndedProcess(name, found[name].times + 1 if name in found else 1, last, how, "")
    told = (one._replace(error=_error(logs / f"{name}.log")) for name, one in found.items())
    return sorted(told, key=lambda one: one.last, reverse=True)


def _error(log: Path) -> str:
    """The last error of a log, in words."""
    errors = [line for line in lines_at_end(log, _LAST_BYTES) if '"level":"error"' in line and '"exception"' in line]
    return in_words(errors[-1]).removeprefix("error: ") if errors else ""
