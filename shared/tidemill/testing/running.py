"""Running coroutines of the product over the twins. The twins answer at once, so nothing waits, and no event loop is needed."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits. Raises the coroutine's exceptions. Works inside a running event loop too."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError(f"{work} waits, but a twin of a server answers at once")
