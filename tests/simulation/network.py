"""Processes and what lies between them: requests that travel, take effect and are answered, or any part of that, or too late."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.loop import Killed, SimLoop

TIMEOUT_SECONDS = 1.0
LATE_SECONDS = 6.0


class Link:
    """The way to one server. `faults`: share of requests that go wrong; `down_until`, `slow_until`: simulated seconds.

    `twice`: share of requests that arrive a second time, later. `away` makes the error a caller sees who gets no answer.
    """

    def __init__(self, away: Callable[[str], Exception]) -> None:
        self.away = away
        self.faults = self.twice = 0.0
        self.down_until = self.slow_until = 0.0
        self.epoch = 0  # how often the server was started anew: what is under way to an earlier one is lost

    def heal(self) -> None:
        """All is well from now on."""
        self.faults = self.down_until = self.slow_until = 0.0


class Process:
    """A process: tasks that can be killed or frozen together at any await. What it has sent off goes its way all the same."""

    def __init__(self, loop: SimLoop, draw: random.Random, name: str) -> None:
        self.loop = loop
        self.draw = draw
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        self.crashed: BaseException | None = None
        self.died: Callable[[Process], None] = lambda process: None
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task; an exception it raises ends the process."""
        task = self.loop.create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and self.alive:
            self.crashed = task.exception()
            self.died(self)
            self.kill()

    def kill(self) -> None:
        """As with kill -9: nothing more is done, wherever the process stands."""
        self.alive = False
        for task in self._tasks:
            task.cancel()

    def freeze(self, seconds: float) -> None:
        """As with SIGSTOP: it goes on later, and knows nothing of the time between."""
        self.frozen_until = max(self.frozen_until, self.loop.now + seconds)

    async def ask(self, link: Link, effect: Callable[..., Any], *args: Any) -> Any:
        """One request: `effect` happens at the server at once, later, or never; so does the answer. Raises the link's error without one."""
        loop = self.loop
        await self._stands()
        reply: asyncio.Future[Any] = loop.create_future()
        chance = self.draw.random()
        slow = 50.0 if loop.now < link.slow_until else 1.0
        there, back = 0.02 * self.draw.random() * slow, 0.003 * slow
        if chance >= link.faults:
            loop.call_later(there, self._arrive, link, link.epoch, reply, back, effect, args)
            if slow > 1:
                loop.call_later(TIMEOUT_SECONDS, self._give_up, link, reply)
            if chance < link.twice:
                loop.call_later(there + LATE_SECONDS * self.draw.random(), self._arrive, link, link.epoch, None, 0.0, effect, args)
        else:
            fate = int(3 * chance / link.faults)
            if fate == 0:  # the answer is lost: the connection is cut, or nothing comes
                loop.call_later(there, self._arrive, link, link.epoch, None, 0.0, effect, args)
            elif fate == 1:  # half open: it takes effect when nobody waits for it any longer
                loop.call_later(
                    TIMEOUT_SECONDS + LATE_SECONDS * self.draw.random(), self._arrive, link, link.epoch, None, 0.0, effect, args
                )
            loop.call_later(TIMEOUT_SECONDS * self.draw.random() if fate == 0 else TIMEOUT_SECONDS, self._give_up, link, reply)
        return await reply

    async def _stands(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError
        while self.loop.now < self.frozen_until:
            await asyncio.sleep(self.frozen_until - self.loop.now)

    def _arrive(
        self, link: Link, epoch: int, reply: asyncio.Future[Any] | None, back: float, effect: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if self.loop.now < link.down_until or epoch != link.epoch:
            if reply is not None:
                self.loop.call_later(TIMEOUT_SECONDS / 4, self._give_up, link, reply)
            return
        try:
            result = effect(*args)
        except Exception as error:
            result = error
        if reply is not None:
            self.loop.call_later(back, self._answer, reply, result)

    def _answer(self, reply: asyncio.Future[Any], result: Any) -> None:
        if self.loop.now < self.frozen_until:
            self.loop.call_at(self.frozen_until, self._answer, reply, result)
        elif not reply.done():
            if isinstance(result, Exception):
                reply.set_exception(result)
            else:
                reply.set_result(result)

    def _give_up(self, link: Link, reply: asyncio.Future[Any]) -> None:
        if not reply.done():
            self._answer(reply, link.away("no answer"))

    def busy(self, seconds: float) -> None:
        """Called in a thread: everybody else goes on meanwhile. Raises Killed when the process ended."""
        self.loop.run(max(self.loop.now + seconds, self.frozen_until))
        if not self.alive:
            raise Killed
