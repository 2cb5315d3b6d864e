"""Samples of what the online store and feature serving show, taken at random moments, each with the fence at which it can be judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
from aiokafka import TopicPartition
from tests.faults.logcheck import PartitionCheck
from tests.faults.messages import Rewind, Status
from tests.faults.served import Answer, ask, connection

from tidemill.declarations import FeatureView
from tidemill.errors import TidemillError, Unavailable
from tidemill.kernel.fences import Fence, position
from tidemill.online.keys import fence_key, state_key
from tidemill.redis.link import RedisLink

ENTITIES, ASKED_ENTITIES = 20, 5
HAMMERED = 20
"""So many samples without a pause, now and then."""


class Sample(NamedTuple):
    """A fence and values, as they were read in one command."""

    fence: Fence
    values: dict[bytes, bytes | None]


class Sampler:
    """Takes samples and hands each to `put`, with its partition and position. `name`: by which a version of a view is asked for. Notes fences that go back in `status.rewinds`."""

    def __init__(
        self,
        project: str,
        checks: Mapping[TopicPartition, PartitionCheck],
        status: Status,
        pick: random.Random,
        put: Callable[[TopicPartition, int, Sample | Answer], None],
        name: Callable[[FeatureView], str],
    ) -> None:
        self._project, self._checks, self._status, self._pick, self._put, self._name = project, checks, status, pick, put, name
        self._fences: dict[TopicPartition, int] = {}

    async def read_store(self, link: RedisLink, per_second: float) -> None:
        """Reads a fence with entities of its partition at random moments, and as fast as it can for a moment now and then."""
        while True:
            for _ in range(HAMMERED if self._pick.random() < 0.1 else 1):
                tp, entities = self._some(ENTITIES)
                with contextlib.suppress(TidemillError):
                    await self.read(link, tp, entities)
            await asyncio.sleep(self._pick.expovariate(per_second))

    async def ask_serving(self, link: RedisLink, url: str, per_second: float) -> None:
        """Asks for features as clients do; what was answered while the fence stood still can be judged at that fence."""
        async with connection(url, 3) as http:
            while True:
                tp, entities = self._some(ASKED_ENTITIES)
                view = self._checks[tp].view
                key = fence_key(self._project, view.log, tp.partition)
                with contextlib.suppress(TidemillError):
                    before = await link.call(b"GET", key)
                    answer = await ask(http, view, self._name(view), entities)
                    if answer is not None and before is not None and before == await link.call(b"GET", key):
                        self._put(tp, position(before), answer)
                await asyncio.sleep(self._pick.expovariate(per_second))

    def _some(self, most: int) -> tuple[TopicPartition, list[bytes]]:
        tp = self._pick.choice(list(self._checks))
        known = self._checks[tp].entities
        return tp, self._pick.sample(known, min(len(known), most))

    async def read(self, link: RedisLink, tp: TopicPartition, entities: list[bytes]) -> None:
        """Reads one sample. Raises what the link raises."""
        check = self._checks[tp]
        keys = [state_key(self._project, check.view.log, tp.partition, entity) for entity in entities]
        encoded, *values = await link.call(b"MGET", fence_key(self._project, check.view.log, tp.partition), *keys)
        if tp not in self._checks:  # it was pruned meanwhile
            return
        try:
            fence = None if encoded is None else Fence.decode(encoded)
        except msgspec.DecodeError as error:
            check.tell("different", "the fence cannot be read", [(encoded, str(error))])
            return
        found, before = 0 if fence is None else fence.next, self._fences.get(tp, 0)
        if found < before:
            self._status.rewinds.append(
                Rewind(time.monotonic(), f"{check.view.log}[{tp.partition}]", before, None if fence is None else found)
            )
        self._fences[tp] = found
        if fence is not None and not fence.builder:
            self._put(tp, found, Sample(fence, dict(zip(entities, values, strict=True))))

    async def read_insistently(self, link: RedisLink, tp: TopicPartition, entities: list[bytes]) -> None:
        """`read`, repeated for ten seconds while the store does not answer."""
        for _ in range(50):
            try:
                await self.read(link, tp, entities)
            except Unavailable:
                await asyncio.sleep(0.2)
            else:
                return
        raise TidemillError("the online store does not answer in the end")
