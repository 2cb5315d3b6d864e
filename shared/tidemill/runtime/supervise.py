"""The loop of every worker: try, tell why not, give a sign of life, pause, try again.

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
    tell: Callable[[str], None],
    pulses: Iterable[Pulse] = (),
    waited_for: tuple[type[Exception], ...] = (TidemillError,),
    pause_seconds: float = RETRY_SECONDS,
) -> T:
    """Runs `body` until it returns, and returns what it returned. Raises what it raises, unless that is `waited_for`.

    Such an error is told with its reason, the pulses beat, and after a pause the body begins anew. One that is not ours, which only a worker waits
    for that must never fall silent, is logged with its trace too.
    """
    pulses = list(pulses)
    while True:
        try:
            return await body()
        except waited_for as error:
            if not isinstance(error, TidemillError):
                log.error("a worker begins anew", exc_info=error)
            tell(str(error) or type(error).__name__)
        for pulse in pulses:
            pulse.beat()
        await asyncio.sleep(pause_seconds)
