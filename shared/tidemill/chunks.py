"""Cutting a sequence into lists of limited size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in order, in lists of `size`. The last list may be shorter; none is empty. Reads an iterator only one list ahead."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
