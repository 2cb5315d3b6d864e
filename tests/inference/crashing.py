"""Inference that kills itself with SIGKILL at a chosen point of a request that carries an id: `CRASH_AT=point`.

    python -m tests.inference.crashing

The points surround the two steps of a promise: keeping the prediction under its id, and logging it. The service's own code knows nothing of it.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from tidemill.runtime.entry import service_main
from tidemill_inference.__main__ import main
from tidemill_inference.first_answers import FirstAnswers
from tidemill_inference.prediction_log import PredictionLog

POINTS = {"before_settle": (FirstAnswers, "settle"), "after_settle": (FirstAnswers, "settle"), "after_append": (PredictionLog, "append")}


def _arm(point: str) -> None:
    owner, name = POINTS[point]
    method = getattr(owner, name)

    async def call(*args: Any) -> Any:
        if point.startswith("before"):
            os.kill(os.getpid(), signal.SIGKILL)
        await method(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, call)


if __name__ == "__main__":
    _arm(os.environ["CRASH_AT"])
    raise SystemExit(service_main("inference", main))
