"""A service with hooks: the real one, which obeys orders at the named points of its work and whose clock can be set wrong. A command too.

    python -m tests.faults.injections.hooked
    python -m tests.faults.injections.hooked apply --yes

Which service it is says `HOOKED_PROCESS` or else the local stack (`TIDEMILL_PROCESS`): `features`, and `features2` too. Orders come from the folder
`HOOKED_ORDERS`. The service's own code knows nothing of it. `HOOKED_GROUP` puts a features worker into a consumer group of its own, `HOOKED_FILES_PER_MERGE`
makes tables be compacted more often than every hundred commits. Members of consumer groups are given up after half of production's time, so that less
of a run is spent on waiting for it.
"""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import sys
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults.injections.orders import Obedience

SESSION_SECONDS = 3  # after which a consumer group gives up a member that died or sleeps
_MEMBERS = {"ingestion": "tidemill_ingestion.consumer", "features": "tidemill_features.faust_transport"}
_STORE = "tidemill.online.writer:OnlineWriter"
_APPLYING = "tidemill.operations.applying:Applying"
_DELTA = (
    ("write", "tidemill.offline.delta:CountedTable._write"),
    ("compact", "tidemill.offline.delta:CountedTable._maintain"),
)
WORK: dict[str, tuple[tuple[str, str], ...]] = {
    "ingestion": (
        ("send", "tidemill_ingestion.consumer:EventConsumer._send"),
        ("commit", "tidemill_ingestion.consumer:EventConsumer._commit"),
    ),
    "features": (
        ("fences", f"{_STORE}.fences"),
        ("load", f"{_STORE}.load"),
        ("fold", "tidemill_features.partition:Partition.advance"),
        ("apply", f"{_STORE}.apply"),
        ("applied", "tidemill_features.partition:Partition.applied"),
    ),
    "offline": _DELTA,
    "predlog": (
        *_DELTA,
        ("append", "tidemill_predlog.results:ResultsTable.append"),
        ("publish", "tidemill_predlog.outbox:Outbox.publish"),
    ),
    "inference": (
        ("log", "tidemill_inference.prediction_log:PredictionLog.append"),
        ("send", "tidemill_inference.prediction_log:send_wave"),
        ("model", "tidemill_inference.registry:Registry._load"),
    ),
    "drift": (
        ("tell", "tidemill_drift.detector:Detector._send"),
        ("keep", "tidemill_drift.detector:Detector._keep_position"),
    ),
    "apply": (
        ("begin", f"{_APPLYING}.begin"),
        ("archive", "tidemill.operations.fill.job:Fill._archive"),
        ("wave", "tidemill.operations.fill.private_log:PrivateLog.send"),
        ("live", "tidemill.operations.fill.job:Fill._live"),
        ("fill", "tidemill.operations.fill.job:Fill.run"),
        ("record", "tidemill.operations.applying:append_definitions"),
        ("wait", f"{_APPLYING}.wait"),
        ("finish", f"{_APPLYING}.finish"),
    ),
    "load": (("portion", "tidemill.archive.load:Load._commit"),),
    "prune": (
        ("record", "tidemill.operations.pruning:append_definitions"),
        ("keys", "tidemill.operations.pruning:Pruning._delete_keys"),
        ("table", "tidemill.offline.store:OfflineStore.drop"),
        ("topic", "tidemill.operations.pruning:Pruning._delete_topic"),
    ),
}
"""Service or command -> its steps: a name, and the function that does it. Each has a point `before_` and one `after_` it."""


FOLLOW = ("follow", "tidemill.streams.following:Following._take")
"""The step of every service that follows the catalogue: it takes over a record of it. It has orders of its own, since it is struck beside others."""
COMMANDS = ("apply", "load", "prune")
PORTION_ROWS = 1_000  # that `load` commits at once, so that a file of moderate size takes several commits


def points(service: str) -> list[str]:
    """The points of a service, or a command, at which it takes orders."""
    return [f"{when}_{step}" for step, _ in WORK.get(service, ()) for when in ("before", "after")]


def following(process: str) -> str:
    """Who gets a process' orders about its step `FOLLOW`."""
    return f"{process}.follow"


def main() -> None:
    """Become the service."""
    folder = Path(os.environ["HOOKED_ORDERS"])
    process = os.environ.get("HOOKED_PROCESS") or os.environ["TIDEMILL_PROCESS"].rpartition(":")[2]
    service = _service(process)
    _bend_clock(folder / "clock")
    obedience = Obedience(folder, process)
    for step, place in WORK.get(service, ()):
        _hook(place, step, obedience.reach)
    if service in COMMANDS:
        _run_command(obedience)
        return
    _hook(FOLLOW[1], FOLLOW[0], Obedience(folder, following(process)).reach)
    if service in _MEMBERS:
        member: Any = import_module(_MEMBERS[service])
        assert member.SESSION_MS == 2_000 * SESSION_SECONDS
        member.SESSION_MS = 1_000 * SESSION_SECONDS
    if service == "features" and (group := os.environ.get("HOOKED_GROUP")):
        _own_everything(group)
    if often := os.environ.get("HOOKED_FILES_PER_MERGE"):
        delta: Any = import_module("tidemill.offline.delta")
        delta.FILES_PER_MERGE = int(often)
    runpy.run_module(f"tidemill_{service}", run_name="__main__", alter_sys=True)


def _run_command(obedience: Obedience) -> None:
    load: Any = import_module("tidemill.archive.load")
    files: Any = import_module("tidemill.archive.files")
    cli: Any = import_module("tidemill.cli")
    load.COMMIT_ROWS = files._BATCH_ROWS = PORTION_ROWS
    obedience.reach("start")
    sys.argv[0] = "tidemill"
    cli.main()


def _service(process: str) -> str:
    found = re.match(r"[a-z]+", process)
    assert found, f"no service is called {process!r}"
    return found[0]


def _hook(place: str, step: str, reach: Callable[[str], None]) -> None:
    module, _, path = place.partition(":")
    owner: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, _wrapped(getattr(owner, name), step, reach))


def _wrapped(work: Any, step: str, reach: Callable[[str], None]) -> Any:
    if asyncio.iscoroutinefunction(work):

        @wraps(work)
        async def call(*args: Any, **kwargs: Any) -> Any:
            reach(f"before_{step}")
            answer = await work(*args, **kwargs)
            reach(f"after_{step}")
            return answer

        return call

    @wraps(work)
    def plain(*args: Any, **kwargs: Any) -> Any:
        reach(f"before_{step}")
        answer = work(*args, **kwargs)
        reach(f"after_{step}")
        return answer

    return plain


def _own_everything(group: str) -> None:
    """A worker alone in a group of its own has every partition, whoever else has them too."""
    app: Any = import_module("tidemill_features.app")
    batched_app = app.batched_app
    app.batched_app = lambda _group, *args, **kwargs: batched_app(group, *args, **kwargs)


def _bend_clock(file: Path) -> None:
    """Let `time.time` and `time.time_ns` be wrong by the seconds in a file; the monotonic clock stays right."""
    right_seconds, right_ns = time.time, time.time_ns
    looked, offset_seconds = -1.0, 0.0

    def offset() -> float:
        nonlocal looked, offset_seconds
        now = time.monotonic()
        if now - looked > 0.1:
            looked = now
            try:
                offset_seconds = float(file.read_text())
            except FileNotFoundError:
                offset_seconds = 0.0
        return offset_seconds

    time.time = lambda: right_seconds() + offset()
    time.time_ns = lambda: right_ns() + int(offset() * 1e9)


if __name__ == "__main__":
    main()
