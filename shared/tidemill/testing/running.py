"""Running the product's coroutines over the twins: they answer at once, so that nothing is waited for and no event loop is needed."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits; raises what it raises. Works inside a running event loop too."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(f"{work} waits, but a twin of a server answers at once")
