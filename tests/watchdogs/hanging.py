"""A service that hangs when a file says so; its own code knows nothing of it.

    python -m tests.watchdogs.hanging

Which service it is says the local stack (`TIDEMILL_PROCESS`). `<service>.loop` in the folder `HANG_ORDERS` blocks its event loop; `<service>.thread`
freezes the next thread it waits for, in feature computation the one of Kafka's consumer. An order is obeyed once: the file is removed. Silence is
counted only while there is a file `armed`, so that a service may start as slowly as a busy machine makes it.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidemill.runtime.watchdog import Pulse, Watchdog

FOREVER_SECONDS = 3600.0


def blocked_loop() -> None:
    """What the stacks of a blocked loop show."""
    time.sleep(FOREVER_SECONDS)


def frozen_thread() -> None:
    """What the stacks of a frozen thread show."""
    time.sleep(FOREVER_SECONDS)


def _ordered(order: Path) -> bool:
    try:
        order.unlink()
    except FileNotFoundError:
        return False
    return True


def _when_ordered(order: Path, loops: list[Any], hang: Callable[[], None]) -> None:
    """Run `hang` in the newest of the loops as soon as it is ordered."""

    def look() -> None:
        while not (loops and _ordered(order)):
            time.sleep(0.1)
        loops[-1].call_soon_threadsafe(hang)

    threading.Thread(target=look, daemon=True).start()


def _note_the_loop(loops: list[Any]) -> None:
    enter = Watchdog.__aenter__

    async def entered(self: Watchdog) -> Watchdog:
        loops.append(asyncio.get_running_loop())
        return await enter(self)

    Watchdog.__aenter__ = entered  # type: ignore[assignment, method-assign]


def _note_fausts_loop(loops: list[Any]) -> None:
    from tidemill_features import faust_transport as batched

    create = batched._Thread._create_worker_consumer

    def created(self: Any, transport: Any) -> Any:
        loops.append(self.thread_loop)
        return create(self, transport)

    batched._Thread._create_worker_consumer = created  # type: ignore[method-assign]


def _freeze_threads(order: Path) -> None:
    to_thread = asyncio.to_thread

    async def call(function: Callable[..., Any], *args: Any) -> Any:
        if _ordered(order):
            await to_thread(frozen_thread)
        return await to_thread(function, *args)

    asyncio.to_thread = call  # type: ignore[assignment]


def _count_while(armed: Path) -> None:
    tick = Pulse.tick

    def counted(self: Pulse) -> None:
        if not armed.exists():
            self.beat()
        tick(self)

    Pulse.tick = counted  # type: ignore[method-assign]


def main() -> None:
    """Become the service."""
    service = os.environ["TIDEMILL_PROCESS"].rpartition(":")[2]
    orders = Path(os.environ["HANG_ORDERS"])
    loops: list[Any] = []
    _count_while(orders / "armed")
    _note_the_loop(loops)
    _when_ordered(orders / f"{service}.loop", loops, blocked_loop)
    if service == "features":
        fausts: list[Any] = []
        _note_fausts_loop(fausts)
        _when_ordered(orders / f"{service}.thread", fausts, frozen_thread)
    else:
        _freeze_threads(orders / f"{service}.thread")
    runpy.run_module(f"tidemill_{service}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
