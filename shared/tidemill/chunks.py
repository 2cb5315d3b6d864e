"""Cutting what comes into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in order, in lists of `size`; the last may be shorter, none is empty. An iterator is read only as far as is asked."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
