"""A worker that kills itself with SIGKILL at a chosen point: `CRASH_AT=point:n`, the n-th time it is reached.

    python -m tests.features.crashing

The points surround the two calls to the store and the fold between them; the worker's own code knows nothing of it.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from tidemill.entry import service_main
from tidemill.online_store import OnlineWriter
from tidemill_features.__main__ import main
from tidemill_features.partition import Partition

POINTS = ("before_load", "after_load", "after_fold", "before_apply", "after_apply", "after_applied", "before_fences", "after_fences")


class _Bomb:
    def __init__(self, setting: str) -> None:
        self.point, _, count = setting.partition(":")
        self.left = int(count)

    def reach(self, point: str) -> None:
        self.left -= point == self.point
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def _arm(bomb: _Bomb) -> None:
    for owner, method, before, after in (
        (OnlineWriter, "fences", "before_fences", "after_fences"),
        (OnlineWriter, "load", "before_load", "after_load"),
        (OnlineWriter, "apply", "before_apply", "after_apply"),
    ):
        setattr(owner, method, _wrapped(getattr(owner, method), bomb, before, after))
    for method, after in (("advance", "after_fold"), ("applied", "after_applied")):
        setattr(Partition, method, _wrapped_plain(getattr(Partition, method), bomb, after))


def _wrapped(method: Any, bomb: _Bomb, before: str, after: str) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        bomb.reach(before)
        answer = await method(*args, **kwargs)
        bomb.reach(after)
        return answer

    return call


def _wrapped_plain(method: Any, bomb: _Bomb, after: str) -> Any:
    def call(*args: Any) -> Any:
        answer = method(*args)
        bomb.reach(after)
        return answer

    return call


if __name__ == "__main__":
    _arm(_Bomb(os.environ["CRASH_AT"]))
    raise SystemExit(service_main("features", main))
