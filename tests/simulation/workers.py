"""Workers of feature computation as processes, and the consumer group that hands partitions to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from aiokafka.errors import KafkaError
from faust.types import TP
from tests.simulation.broker import Broker, Client
from tests.simulation.loop import SimLoop
from tests.simulation.network import Process
from tests.simulation.project import PROJECT
from tests.simulation.store import Server, SimWriter

from tidemill.errors import KafkaUnavailable, StoreError, StoreUnavailable
from tidemill.records import DeadLetterRecord, KafkaRecord
from tidemill_features.delivery import Delivery, Held, Slice
from tidemill_features.worker import Worker

SESSION_SECONDS = 2.0
LOOK_SECONDS = 1.0
PAUSE_SECONDS = 0.5
FETCH_SECONDS = 1.0


class SimLetters:
    """The dead-letter topic."""

    def __init__(self, process: Process, broker: Broker) -> None:
        self._process = process
        self._broker = broker

    async def send(self, letters: Sequence[DeadLetterRecord]) -> None:
        """See `DeadLetters.send`."""
        try:
            await self._process.ask(self._broker.link, self._broker.keep_letters, letters)
        except KafkaError as error:
            raise KafkaUnavailable(str(error), mend="") from error


async def _past(spans: Mapping[TP, range]) -> AsyncIterator[tuple[TP, Sequence[KafkaRecord]]]:
    """What the logs had before: nobody asks, since the view remembers ids by their number."""
    raise AssertionError(spans)
    yield TP("", 0), []


class Member(Process):
    """A worker process: the real `Worker` and `Delivery`, and what Faust does between them.

    `loses`: share of slices that Faust drops on the way. `cache_bytes`: small enough that entities are loaded again and again.
    """

    def __init__(
        self, loop: SimLoop, draw: random.Random, name: str, group: Group, broker: Broker, server: Server, cache_bytes: int
    ) -> None:
        super().__init__(loop, draw, name)
        self.group = group
        self.worker = Worker(PROJECT, SimWriter(self, server, PROJECT.name), cache_bytes, SimLetters(self, broker), _past)
        self.delivery = Delivery(self.positions, self.worker.give_up)
        self.client = Client(self, broker)
        self.assigned: set[TP] = set()
        self.generation = 0
        self.flowing = False
        self.loses = 0.0
        self.at_work: tuple[TP, Slice] | None = None
        self.note: Callable[..., None] = lambda *step: None
        self._queue: asyncio.Queue[tuple[TP, Slice]] = asyncio.Queue(2)

    def start(self, *, alone: bool = False) -> None:
        """Begin; `alone` takes all partitions without asking the group."""
        for work in (self._fetch, self._handle, self._watch):
            self.spawn(work())
        if alone:
            self.assigned, self.flowing = set(self.client.broker.logs), True
        else:
            self.group.join(self)

    async def positions(self, partitions: Collection[TP], held: Held) -> dict[TP, int]:
        """Where to begin: what the worker says."""
        return await self.worker.positions(partitions, held)

    async def revoke(self, generation: int) -> None:
        """A rebalance begins, which ends a generation."""
        await self._stands()
        if self.generation > generation:
            return  # it stood still meanwhile, and has heard of a later one
        self.flowing = False
        self.delivery.break_all()
        while not self._queue.empty():
            self._queue.get_nowait()

    async def assign(self, generation: int, partitions: set[TP]) -> None:
        """A rebalance ends."""
        await self._stands()
        if generation != self.group.generation:
            return  # the coordinator refuses to answer for an earlier one
        self.generation, self.assigned = generation, partitions
        self.delivery.break_all()
        self.flowing = True

    async def _fetch(self) -> None:
        """The consumer's loop, as in `batched.Consumer.getmany`."""
        while True:
            if not self.flowing:
                await asyncio.sleep(0.2)
                continue
            pieces = await self.delivery.slices(self.assigned, self.client, self.loop.time(), FETCH_SECONDS)
            if pieces is None:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            generation = self.generation
            for tp, piece in pieces:
                if not self.flowing or generation != self.generation:
                    break
                if not self.loses or self.draw.random() >= self.loses:
                    await self._queue.put((tp, piece))

    async def _handle(self) -> None:
        """The agent, as in `batched.batched_app`: an exception ends the process."""
        while True:
            tp, piece = self.at_work = await self._queue.get()
            await self.handle(tp, piece)
            self.delivery.handled(tp, piece)
            self.at_work = None
            self.group.committed |= self.delivery.done

    async def handle(self, tp: TP, piece: Slice) -> None:
        """What the worker does with a slice."""
        self.note(self.name, "takes a slice", tp.partition, f"{piece.start}..{piece.start + len(piece.records) - 1}")
        await self.worker.handle(tp, piece)

    async def _watch(self) -> None:
        """Looks for a store that somebody else has changed, as `FoldWatch` does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                displaced = await self.worker.displaced(sorted(self.delivery.placed))
            except (StoreUnavailable, StoreError):
                continue
            for tp in displaced & self.delivery.placed:
                self.delivery.break_chain(tp)


class GroupMember(Protocol):
    """What the coordinator knows of a member."""

    @property
    def alive(self) -> bool:
        """Whether its heart beats, unless it stands still."""

    @property
    def frozen_until(self) -> float:
        """Until when it stands still."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task of its process."""

    async def revoke(self, generation: int) -> None:
        """A rebalance begins, which ends a generation; it returns when the member has given up its partitions."""

    async def assign(self, generation: int, partitions: set[TP]) -> None:
        """A rebalance ends."""


class Group:
    """The coordinator: every change of members revokes all partitions and hands them out anew.

    `committed`: offsets kept at the broker, which nobody goes on from. `overdue` is called when a member that lives does not give up its
    partitions in time.
    """

    def __init__(self, loop: SimLoop, draw: random.Random, partitions: Collection[TP], overdue: Callable[[str], None]) -> None:
        self.committed: dict[TP, int] = {}
        self.generation = 0
        self._loop = loop
        self._draw = draw
        self._partitions = sorted(partitions)
        self._members: list[GroupMember] = []
        self._overdue = overdue
        self._running = False
        self._again = False

    @property
    def members(self) -> Sequence[GroupMember]:
        """Who is in the group."""
        return self._members

    def join(self, member: GroupMember) -> None:
        """A member comes."""
        self._members.append(member)
        self._change()

    def leave(self, member: GroupMember) -> None:
        """A member goes by itself."""
        if member in self._members:
            self._members.remove(member)
            self._change()

    def look(self) -> None:
        """Called now and then: members that have been silent for a session are put out, and learn of it when they are back."""
        silent = [m for m in self._members if not m.alive or m.frozen_until > self._loop.now]
        for member in silent:
            self._loop.call_later(SESSION_SECONDS, self._put_out, member)

    def _put_out(self, member: GroupMember) -> None:
        if member in self._members and (not member.alive or member.frozen_until > self._loop.now):
            self.leave(member)
            if member.alive:
                member.spawn(self._come_back(member))

    async def _come_back(self, member: GroupMember) -> None:
        """A zombie works on with what it had until its heartbeat is answered."""
        await asyncio.sleep(max(0.0, member.frozen_until - self._loop.now) + 2 * self._draw.random())
        await member.revoke(self.generation)
        self.join(member)

    def _change(self) -> None:
        if self._running:
            self._again = True
        else:
            self._running = True
            self._loop.create_task(self._rebalance())

    async def _rebalance(self) -> None:
        while True:
            self._again = False
            began = self._loop.now
            leaving = [(member, member.spawn(member.revoke(self.generation))) for member in self._members]
            while waiting := [member for member, task in leaving if self._waits_for(member, task)]:
                if any(self._loop.now - max(began, member.frozen_until) > 2 * SESSION_SECONDS for member in waiting):
                    self._overdue("a rebalance waits for a member that lives")
                await asyncio.sleep(0.2)
            if not self._again:
                break
        self._running = False
        self.generation += 1
        members = list(self._members)
        for i, member in enumerate(members):
            mine = {tp for n, tp in enumerate(self._partitions) if n % len(members) == i}
            member.spawn(member.assign(self.generation, mine))

    def _waits_for(self, member: GroupMember, task: asyncio.Task[Any]) -> bool:
        return member in self._members and member.alive and member.frozen_until <= self._loop.now and not task.done()
