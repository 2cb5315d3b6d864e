"""A Redis Cluster with the same few methods as one server: a map of its slots, and one pipelined link to each primary.

    async with RedisCluster(RedisAddress.of_cluster(url), timeout_seconds=0.25) as cluster:
        values = await cluster.mget([fence_key, entity_key])

A key's slot is CRC-16 of its hash tag (https://valkey.io/topics/cluster-spec). When a slot has moved, the node that was asked names the new
one, and the command is sent there; after a fail-over the link finds the new primary. A command that cannot be done now fails with
SlotUnavailable; other slots go on. Fail-over loses writes that were not replicated yet, so a writer may find an older fence than it wrote.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Self

from tidemill.errors import NoScript, SlotUnavailable, StoreError, StoreUnavailable
from tidemill.redis.address import RedisAddress
from tidemill.redis.link import RedisLink, script_digest
from tidemill.redis.protocol import Arg
from tidemill.redis.replies import Redirected, known_host
from tidemill.runtime.logs import get_logger

log = get_logger(__name__)

SLOTS = 16_384
_REDIRECTIONS = 5
_REFRESH_SECONDS = 0.1  # between two readings of the map while something is wrong

Layout = list[tuple[int, int, str, int]]
"""Which primary has which slots: first slot, last slot, host, port."""


def slot_of(key: Arg) -> int:
    """The slot of a key: CRC-16 (XMODEM) of the text between its first braces, or of the whole key without such text."""
    data = key if isinstance(key, bytes) else str(key).encode()
    begin = data.find(b"{") + 1
    end = data.find(b"}", begin) if begin else -1
    return binascii.crc_hqx(data[begin:end] if end > begin else data, 0) % SLOTS


def layout_of(reply: list[Any], asked: str) -> Layout:
    """The map in a reply to CLUSTER SLOTS. `asked`: the host of the node that replied, for nodes whose host the reply leaves out."""
    return sorted((first, last, known_host(_text(node[0])) or asked, node[1]) for first, last, node, *_ in reply)


def _text(name: bytes | None) -> str | None:
    return None if name is None else name.decode()


class RedisCluster:
    """Links to all primaries of a cluster; a few of its nodes name the others. `timeout_seconds` holds for each node, as for a RedisLink.

    `on_change` is called with None while at least one primary can be reached, and with a reason when none can, for a health board.
    """

    def __init__(
        self, seeds: Sequence[RedisAddress], timeout_seconds: float = 1.0, on_change: Callable[[str | None], None] | None = None
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._on_change = on_change or (lambda _reason: None)
        self._seeds = {(seed.host or "", seed.port): seed for seed in seeds}
        self._links: dict[tuple[str, int], RedisLink] = {}
        self._owners: list[RedisLink | None] = [None] * SLOTS
        self._primaries: list[RedisLink] = []
        self._reason = "the cluster's slots are not known yet"
        self._stale = asyncio.Event()
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect in the background and wait for all primaries, one time-out at most. Does not raise when the cluster is away."""
        if self._task is None:
            for place in self._seeds:
                self._link(*place)
            self._task = asyncio.create_task(self._follow(), name="redis-cluster")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await self._up.wait()

    async def close(self) -> None:
        """Close every connection. Calls that wait, and all later ones, fail with StoreUnavailable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Whether a primary can be reached."""
        return any(link.connected for link in self._primaries)

    async def call(self, *args: Arg) -> Any:
        """Send one command whose second word is a key; other keys must share its slot.

        Raises SlotUnavailable when it cannot be done now or it is unknown whether it was done, and StoreError as RedisLink does.
        """
        return await self._send(slot_of(args[1]), args)

    async def script(self, lua: str, keys: Sequence[Arg], args: Sequence[Arg]) -> Any:
        """Run a Lua script on the node of its keys, which share a slot. Raises as `call` does."""
        slot = slot_of(keys[0])
        try:
            return await self._send(slot, (b"EVALSHA", script_digest(lua), len(keys), *keys, *args))
        except NoScript:
            return await self._send(slot, (b"EVAL", lua, len(keys), *keys, *args))

    async def mget(self, keys: Iterable[Arg]) -> list[bytes | None]:
        """The values of keys. Keys of one slot are read at one moment, different slots at different moments. Raises as `call` does."""
        wanted = list(keys)
        slots: dict[int, list[int]] = {}
        for place, key in enumerate(wanted):
            slots.setdefault(slot_of(key), []).append(place)
        if len(slots) == 1:  # a worker's batch, for example: tasks would cost more than the command
            values: list[bytes | None] = await self._send(next(iter(slots)), (b"MGET", *wanted))
            return values
        found: list[bytes | None] = [None] * len(wanted)
        commands = (self._send(slot, (b"MGET", *(wanted[place] for place in places))) for slot, places in slots.items())
        for places, replies in zip(slots.values(), await asyncio.gather(*commands), strict=True):
            for place, reply in zip(places, replies, strict=True):
                found[place] = reply
        return found

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match, in portions. A key that exists all the time comes at least once, also when its slot migrates.

        A key may move from a node not yet scanned to one already scanned; the second walk finds it there. Raises as `call` does.
        """
        try:
            before = await self._refresh()
            for link in self._primaries * 2:
                async for keys in link.scan(pattern):
                    yield keys
            if await self._refresh() != before:
                raise StoreUnavailable("slots went elsewhere meanwhile", mend="retry")
        except StoreUnavailable as error:
            raise SlotUnavailable(f"a walk over the keys of the Redis Cluster: {error.message}", mend=error.mend) from error

    async def everywhere(self, *args: Arg) -> list[Any]:
        """The replies of all reachable primaries to a command without a key. Raises StoreUnavailable when there is none."""
        replies = await asyncio.gather(*(_call(link, args) for link in self._primaries), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, StoreUnavailable):
                raise reply
        good = [reply for reply in replies if not isinstance(reply, StoreUnavailable)]
        if not good:
            raise StoreUnavailable(f"no primary of the Redis Cluster answers: {self._reason}", mend="start it, or correct REDIS_URL")
        return good

    async def _send(self, slot: int, args: Sequence[Arg]) -> Any:
        """Send a command to the node that has the slot; when that node names another one, send it there."""
        link, ask = self._owners[slot], False
        try:
            for _ in range(_REDIRECTIONS):
                if link is None:
                    raise StoreUnavailable(
                        "no node has it" if self._primaries else self._reason, mend="retry; if it stays so, look at the cluster's state"
                    )
                try:
                    return await (_call_asking(link, args) if ask else link.call(*args))
                except Redirected as found:
                    link, ask = self._link(found.host or link.address.host or "", found.port), found.asking
                if not ask:
                    self._owners[slot] = link
                    self._stale.set()
                await link.start()
            raise StoreUnavailable("the nodes of the Redis Cluster send each other's callers around", mend="retry")
        except StoreUnavailable as error:
            self._stale.set()
            raise SlotUnavailable(f"slot {slot} of the Redis Cluster: {error.message}", mend=error.mend) from error

    def _link(self, host: str, port: int) -> RedisLink:
        """The link to a node; a new one is opened."""
        link = self._links.get((host, port))
        if link is None:
            address = next(iter(self._seeds.values())).at(host, port)
            link = self._links[host, port] = RedisLink(address, self._timeout_seconds, self._node_changed)
            link.open()
        return link

    def _node_changed(self, reason: str | None) -> None:
        if reason is not None or not self._primaries:
            self._stale.set()
        self._report(reason)

    def _report(self, reason: str | None) -> None:
        self._reason = reason or self._reason
        if self._primaries and all(link.connected for link in self._primaries):
            self._up.set()
        self._on_change(None if self.connected else self._reason)

    async def _follow(self) -> None:
        """Read the map whenever an answer does not fit it, and until every primary can be reached."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._refresh()
            except (StoreUnavailable, StoreError) as error:
                self._report(str(error))
            if not self._primaries or not all(link.connected for link in self._primaries):
                self._stale.set()
            await asyncio.sleep(_REFRESH_SECONDS)

    async def _refresh(self) -> Layout:
        """Read the map from any node that answers; close the links to nodes that are not in it and cannot be reached."""
        connected = [link for link in self._links.values() if link.connected]
        if not connected:
            raise StoreUnavailable(self._reason, mend="start the cluster, or correct REDIS_URL")
        asked = random.choice(connected)
        layout = layout_of(await asked.call(b"CLUSTER", b"SLOTS"), asked.address.host or "")
        if not layout:
            raise StoreUnavailable(f"{asked.address} knows of no slots", mend="assign all slots of the cluster")
        owners: list[RedisLink | None] = [None] * SLOTS
        for first, last, host, port in layout:
            owners[first : last + 1] = [self._link(host, port)] * (last + 1 - first)
        primaries = list(dict.fromkeys(self._link(host, port) for _, _, host, port in layout))
        if primaries != self._primaries:
            log.info("primaries of the Redis Cluster", addresses=[str(link.address) for link in primaries])
        self._owners, self._primaries = owners, primaries
        await self._close_those_gone()
        self._report(None)
        return layout

    async def _close_those_gone(self) -> None:
        for place, link in list(self._links.items()):
            if place not in self._seeds and link not in self._primaries and not link.connected:
                del self._links[place]
                await link.close()


async def _call(link: RedisLink, args: Sequence[Arg]) -> Any:
    return await link.call(*args)


async def _call_asking(link: RedisLink, args: Sequence[Arg]) -> Any:
    """Both commands leave in one turn of the loop on one connection, so no other command comes between them."""
    return (await asyncio.gather(link.call(b"ASKING"), link.call(*args)))[1]
