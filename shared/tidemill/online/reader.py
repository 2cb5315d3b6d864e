"""Reading the online store: entities and the fences that vouch for them, in one command (in a cluster: one for each slot).

One MGET is atomic in Redis, and so is the script that writes. So a reader gets exactly the values at the fence, never a part of a batch.
All keys of a partition share a slot. Fences of different slots come from different moments; no code compares them with each other.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tidemill.errors import CorruptState, StoreUnavailable
from tidemill.kernel.view import ViewKernel
from tidemill.online.keys import fence_key, state_key
from tidemill.records import StampEntry
from tidemill.redis.protocol import RedisClient


class Stored(NamedTuple):
    """The stored value of one entity of one view (None: there is none), and the fence of its partition.

    `rebuilding`: the partition's values are older than what was served before, so they are withheld. `since_ms`: see `Fence.since`.
    """

    value: bytes | None
    fence: StampEntry
    rebuilding: bool = False
    since_ms: int = 0


class _Fence(msgspec.Struct, frozen=True):
    """The fields of a fence that a reader needs."""

    next: int
    definition: str
    partitions: int
    until: int = 0
    builder: str = ""
    since: int = 0


class _Keys(NamedTuple):
    """Redis keys of one view, made once: for each partition the key of its fence, and the prefix of its entities' keys."""

    kernel: ViewKernel
    fences: list[bytes]
    prefixes: list[bytes]


_decode_fence = msgspec.json.Decoder(_Fence).decode


class OnlineReader:
    """Reads entities of the given views of a project. The caller starts and closes the link."""

    def __init__(self, link: RedisClient, project: str, kernels: Mapping[str, ViewKernel]) -> None:
        self._link = link
        self._views = {}
        for name, kernel in kernels.items():
            partitions = range(kernel.view.partitions)
            fences = [fence_key(project, kernel.view.log, partition) for partition in partitions]
            self._views[name] = _Keys(kernel, fences, [state_key(project, kernel.view.log, partition, b"") for partition in partitions])

    async def read(self, pairs: Sequence[tuple[str, bytes]]) -> list[Stored]:
        """The stored value and the fence for each (view, entity key): one MGET (in a cluster: one for each slot) with each key once.

        All values of a partition are of one moment. Without a fence feature computation has not begun: position 0, rebuilding. Raises
        StoreUnavailable when Redis is away or holds a view under another definition, StoreError, CorruptState.
        """
        keys: dict[bytes, int] = {}
        places = []
        for view, entity in pairs:
            of_view = self._views[view]
            partition = zlib.crc32(entity) % len(of_view.fences)
            fence = keys.setdefault(of_view.fences[partition], len(keys))
            places.append((of_view.kernel, partition, fence, keys.setdefault(of_view.prefixes[partition] + entity, len(keys))))
        if not keys:
            return []
        found = await self._link.mget(keys)
        stamps: dict[int, tuple[StampEntry, bool, int]] = {}
        stored = []
        for kernel, partition, fence, state in places:
            if fence not in stamps:
                stamps[fence] = _stamp(kernel, partition, found[fence])
            stamp, rebuilding, since_ms = stamps[fence]
            stored.append(Stored(None if rebuilding else found[state], stamp, rebuilding, since_ms))
        return stored


def stamp_of(stored: Iterable[Stored]) -> list[StampEntry]:
    """The distinct fences of some entities, in order."""
    return list(dict.fromkeys(item.fence for item in stored))


def _stamp(kernel: ViewKernel, partition: int, data: bytes | None) -> tuple[StampEntry, bool, int]:
    """The position of a partition, whether it is being rebuilt, and since when events feed it."""
    view = kernel.view
    if data is None:
        return StampEntry(view.log, partition, 0), True, 0
    try:
        fence = _decode_fence(data)
    except msgspec.DecodeError as error:
        raise CorruptState(
            f"view {view.name!r}: the fence of partition {partition} cannot be read: {error}", mend=f"run: tidemill rebuild {view.name}"
        ) from None
    if fence.definition != kernel.definition or fence.partitions != view.partitions:
        raise StoreUnavailable(
            f"view {view.name!r} is stored under definition {fence.definition} with {fence.partitions} partitions, but this service's project "
            f"declares {kernel.definition} with {view.partitions}",
            mend=f"run feature computation and this service on the same project; to compute the view again: tidemill rebuild {view.name}",
        )
    return StampEntry(view.log, partition, fence.next), bool(fence.builder) or fence.next < fence.until, fence.since
