"""What an injection is, and what a running system must offer to it.

An `Injection` is a fault with a name. `strike(rig, rng)` does it to a running system, undoes it, and returns when the system may recover;
it says in a line what it did, for reports. It blocks for `seconds` or so: call it in a thread (`asyncio.to_thread`). All chance comes from `rng`.
It raises `Missed` when there was nothing to strike (a point that was not reached, a log without an end to cut): that counts as no fault.

    async with asyncio.timeout(90):
        said = await asyncio.to_thread(injection.strike, rig, random.Random(seed))

`needs` are parts of the rig that have to be there; `ground.Ground` makes a rig with all of them (where `ground.possible` says so):

- `redis proxy`, `kafka proxy`: the services reach the server through `rig.redis`, `rig.kafka` (`proxy.Proxy`). Readers and writers of the
  test itself go to `rig.stack.kafka` directly, but to Valkey through `rig.redis` too: after a fail-over it alone leads to the primary.
- `hooks`: the services run as `python -m tests.faults.injections.hooked`, which follows orders from the folder `rig.orders`.
- `valkey disk`, `kafka disk`, `offline disk`: that data folder is a small file system of its own (`disks.small_disk`, needs root).
- `model`: a model is deployed.
- `operator`: somebody runs the commands that strikes ask for (`operating.Operator`).

Two injections whose `targets` have nothing in common may strike at once. Every target is a process of the stack, or a command.
`CATALOGUE` (catalogue.py) lists all after which the system recovers by itself, so that they may come in any order, at any time. Those that end in
a deliberate refusal, to be mended by a person, are in `refusals.py` and tried one by one in test_refusals.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.faults.injections.proxy import Proxy
from tests.patience import PATIENCE_SECONDS

from tidemill.local.stack import Stack


class Missed(Exception):
    """There was nothing to strike."""


class Rig(Protocol):
    """A running system under faults."""

    @property
    def home(self) -> Path:
        """The stack's data folder: `kafka/`, `valkey/`, `offline/`, `logs/`."""

    @property
    def stack(self) -> Stack:
        """Servers and services; its `environment` is what a further process of a service needs beside the addresses."""

    @property
    def redis(self) -> Proxy:
        """Between the services and Valkey."""

    @property
    def kafka(self) -> Proxy:
        """Between the services and Kafka."""

    @property
    def orders(self) -> Path:
        """Where hooked services look for orders."""


Strike = Callable[[Rig, random.Random], str]


@dataclass(frozen=True)
class Injection:
    """A fault. `rows`: of the fault matrix; `invariants`: what it is meant to break (rows.py says what the numbers mean).

    `rewinds`: fences of the online store may go back, or vanish, by it. `soak`: too long for every run.
    """

    name: str
    strike: Strike
    targets: tuple[str, ...]
    rows: tuple[str, ...]
    invariants: tuple[str, ...]
    needs: frozenset[str] = frozenset()
    seconds: float = 1.0
    rewinds: bool = False
    soak: bool = False


def until(holds: Callable[[], bool], what: str, limit_seconds: float = PATIENCE_SECONDS) -> None:
    """Return once something holds. Raises TimeoutError saying what does not."""
    end = time.monotonic() + limit_seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {limit_seconds:g} s still not: {what}")
        time.sleep(0.02)
