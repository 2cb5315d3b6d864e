"""The loop of every worker: try; on an error report it, give a sign of life, pause, and try again.

await supervise(self._follow, partial(board.down, "kafka"), [self.pulse])       # a body that never returns: for ever
made = await supervise(self._prepare, partial(board.down, "topics"), pulses)    # one that returns: until it succeeds
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from tidemill.errors import TidemillError
from tidemill.runtime.logs import get_logger
from tidemill.runtime.watchdog import Pulse

log = get_logger(__name__)
T = TypeVar("T")

RETRY_SECONDS = 1.0


async def supervise(
    body: Callable[[], Awaitable[T]],
    tell: Callable[[Exception], None],
    pulses: Iterable[Pulse] = (),
    waited_for: tuple[type[Exception], ...] = (TidemillError,),
    pause_seconds: float = RETRY_SECONDS,
) -> T:
    """Runs `body` until it returns, and gives its result. Errors of the kinds `waited_for` start it again; all others are raised.

    After such an error `tell` gets it, the pulses beat, and after a pause the body starts again. An error that is no TidemillError is
    also logged with its trace: only a worker that must never stop waits for those.
    """
    pulses = list(pulses)
    while True:
        try:
            return await body()
        except waited_for as error:
            if not isinstance(error, TidemillError):
                log.error("a worker begins anew", exc_info=error)
            tell(error)
        for pulse in pulses:
            pulse.beat()
        await asyncio.sleep(pause_seconds)
