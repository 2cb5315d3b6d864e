"""The least that writes as feature computation does: numbers one after the other, in several entities at once, with a fence.

Every batch writes its number to each entity, in whole or in place. So the store is torn if any entity has another number than the fence says,
it has lost something if the fence is lower than what was acknowledged, and nothing can hide it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from redis import Redis
from tests.faults.injections.injection import until

from tidemill.errors import StoreError, Unavailable
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.online.keys import fence_key, state_key
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink

PROJECT, LOG = "ledger", LogName("book.p1")
WHOLE, IN_PLACE = [b"w%d" % i for i in range(3)], [b"p%d" % i for i in range(3)]
_PADDING = b"." * 200


class Ledger:
    """Writes in a thread, for as long as the context lasts. `acknowledged`: the last number; `rewinds`: how often the store was elsewhere."""

    def __init__(self, redis_url: str) -> None:
        self.acknowledged = 0
        self.rewinds = 0
        self._url = redis_url
        self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()))

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        self._thread.join()

    def wait_for(self, more: int) -> None:
        """Return when so many more batches were acknowledged, from wherever the store is."""
        start, rewinds = self.acknowledged, self.rewinds

        def written() -> bool:
            nonlocal start, rewinds
            if self.rewinds != rewinds:
                start, rewinds = self.acknowledged, self.rewinds
            return self.acknowledged >= start + more

        until(written, f"{more} more batches are written")

    async def _write(self) -> None:
        async with RedisLink(self._url, timeout_seconds=1.0) as link:
            writer, stored = OnlineWriter(link, PROJECT), b""
            while not self._ended:
                number = int(stored or 0) + 1
                with suppress(Unavailable, StoreError):  # whether it was written is not known: the same once more
                    if await self._put(writer, stored, number):
                        self.acknowledged, stored = number, b"%d" % number
                        continue
                    (found,) = await writer.fences([(LOG, 0)])
                    assert not isinstance(found, Unavailable)
                    stored = found or b""
                    self.acknowledged = int(stored or 0)
                    self.rewinds += 1
                await asyncio.sleep(0.02)

    async def _put(self, writer: OnlineWriter, stored: bytes, number: int) -> bool:
        value = b"%010d" % number
        values: dict[bytes, bytes | Patch] = dict.fromkeys(WHOLE, value + _PADDING)
        for entity in IN_PLACE:
            values[entity] = Patch(len(value + _PADDING), [(0, value)]) if stored else value + _PADDING
        return await writer.apply(LOG, 0, stored or None, b"%d" % number, values)


def numbers(store: Redis) -> set[int]:
    """What fence and entities say, read at once: one number when the store is whole."""
    keys = [fence_key(PROJECT, LOG, 0), *(state_key(PROJECT, LOG, 0, entity) for entity in (*WHOLE, *IN_PLACE))]
    return {int((value or b"0")[:10]) for value in store.mget(keys)}
