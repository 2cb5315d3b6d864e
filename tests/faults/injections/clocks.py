"""The wall clock of all services goes wrong for a while. The servers' clocks and the monotonic clock stay right."""

from __future__ import annotations

import random
import time

from tests.faults.injections.injection import Injection, Rig
from tests.faults.injections.orders import set_clock

FORWARD_SECONDS = 3540.0
"""Not a whole hour: Kafka refuses records that are stamped more than an hour ahead of its own clock."""


def _skewed(what: str, offset_seconds: float) -> Injection:
    def strike(rig: Rig, rng: random.Random) -> str:
        seconds = rng.uniform(2, 5)
        set_clock(rig.orders, offset_seconds)
        try:
            time.sleep(seconds)
        finally:
            set_clock(rig.orders, 0)
        return f"clocks wrong by {offset_seconds:g} s for {seconds:.1f} s"

    return Injection(f"clock: {what}", strike, (), ("31",), ("I1", "I5"), frozenset({"hooks"}), seconds=3.5)


BACK = _skewed("an hour back", -3600.0)
AHEAD = _skewed("an hour ahead", FORWARD_SECONDS)
STEP_BACK = _skewed("two seconds back", -2.0)
