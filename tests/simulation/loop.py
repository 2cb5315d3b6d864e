"""An event loop whose time is simulated: the production code's tasks, sleeps, time-outs and threads run in it, and nothing ever waits."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any


class Call:
    """A callback that is due at some time."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Take it back."""
        self.callback = None

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self.callback is None


class SimLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as tasks, futures, `asyncio.sleep`, `asyncio.timeout` and `asyncio.to_thread` need. `now`: simulated seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.stopped = False
        self._ready: deque[Call] = deque()
        self._later: list[tuple[float, int, Call]] = []
        self._count = 0

    def time(self) -> float:
        """The simulated time."""
        return self.now

    def get_debug(self) -> bool:
        """Tasks ask."""
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Run it in its turn, at this very time. Contexts are not kept apart."""
        call = Call(callback, args)
        self._ready.append(call)
        return call

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Run it at a time."""
        call = Call(callback, args)
        self._count += 1
        heapq.heappush(self._later, (when, self._count, call))
        return call

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Run it after so many seconds."""
        call = Call(callback, args)
        self._count += 1
        heapq.heappush(self._later, (self.now + delay, self._count, call))
        return call

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """Return a task of this loop."""
        return asyncio.Task(coro, loop=self, **options)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread: runs in one piece, except where it calls `run` itself while it waits for something."""
        future = self.create_future()
        self.call_soon(self._work, future, func, args)
        return future

    @staticmethod
    def _work(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            result = func(*args)
        except Killed:
            future.cancel()
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a history abandons at its end is of no interest."""

    def run(self, until: float) -> None:
        """Let time pass."""
        ready, later = self._ready, self._later
        while not self.stopped:
            if ready:
                call = ready.popleft()
            elif later and later[0][0] <= until:
                when, _, call = heapq.heappop(later)
                if when > self.now:  # noqa: PLR1730 - the hottest line; a thread that waited may have let more time pass
                    self.now = when
            else:
                break
            if call.callback is not None:
                self.steps += 1
                call.callback(*call.args)
        self.now = max(self.now, until)

    def drive(self, main: Coroutine[Any, Any, None], limit: float) -> None:
        """Run a coroutine to its end, for at most so many simulated seconds."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done() and not self.stopped:
                if self.now > limit or not (self._ready or self._later):
                    raise AssertionError(f"a history does not end: {self.now} s, {len(self._later)} calls due")
                self.run(self.now if self._ready else self._later[0][0])
            if task.done():
                task.result()
        finally:
            self._end()
            asyncio._set_running_loop(before)

    def _end(self) -> None:
        """End all tasks that are left."""
        self.stopped = False
        self._later.clear()
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run(self.now)


class Killed(BaseException):
    """The process a thread belongs to is gone."""
