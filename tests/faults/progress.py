"""Whether the system has recovered, how long that took, and whether it ever stood still without a word."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
from aiokafka import TopicPartition
from tests.faults.asking import Clients
from tests.faults.injections.ground import Ground
from tests.faults.versions import Versions

from tidemill.errors import TidemillError
from tidemill.kafka.topics import committed, offset_ranges
from tidemill.kernel.fences import position
from tidemill.online.keys import fence_key
from tidemill.redis.link import RedisLink
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import ingestion_group, view_topic

PATIENCE_SECONDS = 120.0
CATCHING_UP_SECONDS = 600.0
SILENCE_SECONDS = 30.0
POLL_SECONDS = 0.25
_POSITIONS_TIMEOUT = aiohttp.ClientTimeout(total=10)  # it lists every table, and on a busy machine its service comes last


class Stuck(AssertionError):
    """The system did not recover."""


class Look(NamedTuple):
    """One look: which service is behind (with where, and how far it is there), and which does not say that it is well."""

    behind: dict[str, tuple[str, int]]
    complaints: dict[str, str]


class Voices:
    """When each service that is behind was last seen to move, or heard to complain (or one that it depends on)."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[int, float]] = {}

    def silent(self, look: Look, now: float) -> list[str]:
        """Services that are behind and have neither moved nor complained for too long, in words, once each."""
        said = []
        for service, (where, far) in look.behind.items():
            before, heard = self._heard.get(service, (-1, now))
            if far != before or look.complaints:
                heard = now
            elif now - heard > SILENCE_SECONDS:
                said.append(f"{service} stood still for {SILENCE_SECONDS:g} s at {where}, and every service was ready")
                heard = math.inf
            self._heard[service] = far, heard
        return said


@dataclass
class Goal:
    """Up to where everything must come: what was acknowledged when the fault ended, and what has become of that in the logs that there are."""

    published: Mapping[tuple[str, int], int]
    answered: int
    set_at: float
    moved_at: float
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    _far: dict[str, int] = field(default_factory=dict)

    def reach(self, ends: dict[TopicPartition, int]) -> None:
        """Everything must come up to here. A version of a view that came into force meanwhile begins at the beginning of its log, and the
        patience with it anew."""
        self.ends, self.set_at = ends, time.monotonic()

    def overdue(self, look: Look, now: float) -> str | None:
        """What is wrong, once everything had its time. What moves has more of it: on a busy machine a new version is folded slowly."""
        far = {service: far for service, (_, far) in look.behind.items()}
        if far != self._far:
            self._far, self.moved_at = far, now
        since = max(self.set_at, self.moved_at)
        if now - since <= PATIENCE_SECONDS and now - self.set_at <= CATCHING_UP_SECONDS:
            return None
        return f"not recovered after {now - self.set_at:.0f} s: behind {look.behind}, not ready {look.complaints}"


class Progress:
    """Looks at a running system from outside, and at what its clients were told."""

    def __init__(
        self, versions: Versions, rig: Ground, link: RedisLink, published: Mapping[tuple[str, int], int], clients: Clients
    ) -> None:
        self._versions, self._rig, self._link = versions, rig, link
        self._published, self._clients = published, clients
        self._kafka = KafkaSettings(bootstrap_servers=rig.stack.kafka)
        self.silences: list[str] = []

    async def recovered(self, began: float, after: str, *, asking: bool = True) -> float:
        """Returns the seconds from `began` (monotonic) until all that was published before now has gone the whole way, every service is ready
        and a prediction was answered (if any is asked for). Raises Stuck naming what is behind. What stands still without a complaint is noted in `silences`, with what it came `after`.
        """
        goal = Goal(dict(self._published), self._clients.answered if asking else -1, began, began)
        voices = Voices()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as http:
            while True:
                look = await self._look(goal, http)
                now = time.monotonic()
                if not look.behind and not look.complaints:
                    return now - began
                self.silences += [f"after {after}: {said}" for said in voices.silent(look, now)]
                if overdue := goal.overdue(look, now):
                    raise Stuck(overdue)
                await asyncio.sleep(POLL_SECONDS)

    async def _look(self, goal: Goal, http: aiohttp.ClientSession) -> Look:
        complaints = await self._complaints(http)
        try:
            behind = await self._behind(goal, http)
        except (TidemillError, aiohttp.ClientError, OSError, TimeoutError) as error:
            behind = {"servers": (f"{type(error).__name__}: {error}", 0)}
        clients = self._clients
        if clients.answered <= goal.answered and not behind:  # until then it may have to refuse, and says why
            behind["inference"] = (
                f"no prediction ({len(clients.waiting)} requests wait; last refusal: {clients.last_refusal})",
                clients.answered,
            )
        return Look(behind, complaints)

    async def _complaints(self, http: aiohttp.ClientSession) -> dict[str, str]:
        async def ask(name: str, url: str) -> tuple[str, str]:
            try:
                async with http.get(f"{url}/health/ready") as answer:
                    return name, "" if answer.status == HTTPStatus.OK else (await answer.text())[:300]
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                return name, repr(error)

        answers = await asyncio.gather(*(ask(name, url) for name, url in self._rig.stack.urls.items()))
        return {name: said for name, said in answers if said}

    def _fence_keys(self) -> dict[TopicPartition, bytes]:
        """Every partition of every log that services run now."""
        project = self._versions.project
        return {
            TopicPartition(view_topic(project.name, view.log), p): fence_key(project.name, view.log, p)
            for view in project.views.values()
            for p in range(view.partitions)
        }

    async def _behind(self, goal: Goal, http: aiohttp.ClientSession) -> dict[str, tuple[str, int]]:
        keys = self._fence_keys()
        routed = await committed(self._kafka, ingestion_group(self._versions.project.name))
        if goal.ends.keys() != keys.keys():
            left = [tp for tp, end in goal.published.items() if routed.get(TopicPartition(*tp), 0) < end]
            if left:
                return {"ingestion": (str(left), sum(routed.values()))}
            ranges = await offset_ranges(self._kafka, *{tp.topic for tp in keys})
            goal.reach({tp: span.end for tp, span in ranges.items()})
        fences = dict(zip(keys, map(position, await self._link.call(b"MGET", *keys.values())), strict=True))
        async with http.get(f"{self._rig.stack.urls['offline']}/positions", timeout=_POSITIONS_TIMEOUT) as answer:
            written = await answer.json()
        tables = {tp: int(written.get(tp.topic, {}).get(str(tp.partition), 0)) for tp in goal.ends}
        behind = {}
        for service, far in (("features", fences), ("offline", tables)):
            left = [tp for tp, position in far.items() if position < goal.ends[tp]]
            if left:
                behind[service] = ", ".join(f"{topic}[{partition}]" for topic, partition in left), sum(far[tp] for tp in left)
        return behind
