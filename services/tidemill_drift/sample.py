"""A bounded sample that depends only on the ids added, not on their order or on how often they were added."""

from __future__ import annotations

import hashlib
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class Sample(Generic[T]):
    """The rows of the `most` ids with the smallest digests: a random choice, which is the same after any restart.

    An id counts once, with the row that came first: a client or a restart may have logged it again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[int, T] = {}
        self._negated: list[int] = []  # a heap with the largest digest on top

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, id: str, row: T) -> None:
        """Takes a row in, or leaves it out."""
        self._add(int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big"), row)

    def join(self, other: Sample[T]) -> None:
        """Takes in the rows of another sample: the sample of both."""
        for digest, row in other._rows.items():
            self._add(digest, row)

    def _add(self, digest: int, row: T) -> None:
        if digest in self._rows or (len(self._rows) >= self._most and digest > -self._negated[0]):
            return
        self._rows[digest] = row
        heappush(self._negated, -digest)
        if len(self._rows) > self._most:
            del self._rows[-heappop(self._negated)]

    def rows(self) -> list[T]:
        """The rows, in order of their digests."""
        return [self._rows[digest] for digest in sorted(self._rows)]
