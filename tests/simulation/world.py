"""What worlds share, and one simulated world: its servers and processes, what is checked of them at every change, and what is written down for people."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from faust.types import TP
from tests.simulation.broker import Broker
from tests.simulation.lake import Commit, MirrorProcess, Table
from tests.simulation.loop import SimLoop
from tests.simulation.network import Process
from tests.simulation.oracle import Oracle
from tests.simulation.project import PARTITIONS, PROJECT, TOPIC, VIEW, record
from tests.simulation.store import Server
from tests.simulation.workers import Group, Member

from tidemill.kernel.fences import position


class Step(NamedTuple):
    """A line of a history."""

    time: float
    actor: str
    action: str
    partition: int | None = None
    offsets: str = ""
    before: int | None = None
    after: int | None = None
    verdict: str = ""


class AnyWorld:
    """What all worlds have. `wrong`: the first violation of an invariant, which ends the history. `story`: what happened, if it is kept."""

    def __init__(self, seed: int, story: list[Step] | None = None) -> None:
        self.draw = random.Random(seed)
        self.loop = SimLoop()  # type: ignore[abstract]  # nothing asks for the rest
        self.story = story
        self.wrong: str | None = None
        self._names = 0

    def note(self, actor: str, action: str, *rest: Any, **more: Any) -> None:
        """Write a line."""
        if self.story is not None:
            self.story.append(Step(self.loop.now, actor, action, *rest, **more))

    def fail(self, what: str) -> None:
        """An invariant does not hold."""
        if self.wrong is None:
            self.wrong = what
            self.note("check", "", verdict=what)
        self.loop.stopped = True

    def name(self, kind: str) -> str:
        """A name for a new process."""
        self._names += 1
        return f"{kind} {self._names}"

    def died(self, process: Process) -> None:
        """A process has ended by an exception, which none does."""
        self.fail(f"I6: {process.name} ended by {process.crashed!r}")


class World(AnyWorld):
    """The log of one view, with the stores that hold it, and those who write to them."""

    twice = 0.0  # share of requests to the store that arrive a second time

    def __init__(self, seed: int, story: list[Step] | None = None) -> None:
        super().__init__(seed, story)
        self.broker = Broker(TOPIC, PARTITIONS, self.draw)
        self.oracle = Oracle()
        self.server = Server(self.loop, PROJECT.name, VIEW.log, PARTITIONS)
        self.server.link.twice = self.twice
        self.server.changed, self.server.lost = self._store_changed, self._store_lost
        self.table = Table("views/by_card")
        self.table.committed = self._committed
        self.group = Group(self.loop, self.draw, self.broker.logs, lambda what: self.fail(f"I2: {what}"))
        self.members: list[Member] = []
        self.mirrors: list[MirrorProcess] = []
        self.altered: set[int] = set()  # partitions of the store that somebody altered by hand
        self.alterations = 0
        self.log_lost: set[TP] = set()  # logs that lost something
        self._highest: dict[int, int] = {}
        self._collected: dict[str, int] = {}

    def new_member(self, *, alone: bool = False) -> Member:
        """A worker starts."""
        cache_bytes = self.draw.choice((1, 3_000, 1 << 20))
        member = Member(self.loop, self.draw, self.name("worker"), self.group, self.broker, self.server, cache_bytes)
        member.note = self.note
        member.died = self.died
        self.members.append(member)
        self.note(member.name, "starts for all partitions" if alone else "starts")
        member.start(alone=alone)
        return member

    def new_mirror(self) -> MirrorProcess:
        """An offline writer starts."""
        mirror = MirrorProcess(self.loop, self.draw, self.name("mirror"), self.broker, self.table)
        mirror.died = self.died
        self.mirrors.append(mirror)
        self.note(mirror.name, "starts")
        mirror.start()
        return mirror

    def produce(self, tp: TP) -> None:
        """Append a record to the log and to what the oracle knows."""
        log = self.broker.logs[tp]
        row = log.append(*record(log.end, self.draw))
        self.oracle.note(log, row)
        self.note("producer", "appends", tp.partition, str(row.offset))

    # What is checked

    def _store_changed(self, partition: int, by: str, before: bytes | None) -> None:
        stored = self.server.fence(partition)
        verdict = self.state_verdict(partition, stored, self.server.stored(partition))
        after = position(stored)
        is_claim = by.endswith("claims")
        if stored is not None and after < self._highest.get(partition, 0):
            verdict = verdict or f"I3: the fence of partition {partition} fell from {self._highest[partition]} to {after}"
        self._highest[partition] = after
        if self.story is not None:
            self.note(by, "" if is_claim else "writes", partition, "", position(before or None), after, verdict or "ok")
        if verdict:
            self.fail(verdict)

    def state_verdict(self, partition: int, stored: bytes | None, values: dict[bytes, bytes], *, some: bool = False) -> str | None:
        """I1: what is wrong with the entities (`some`: only a few of them) that stand beside a fence. Without a
        fence, or with a claim in its place, nothing is promised."""
        if not stored or partition in self.altered or b'"builder":"w' in stored:
            return None
        known = self.oracle.known(partition, stored)
        if known is None:
            return f"I1: no log of partition {partition} leads to the stored fence at {position(stored)}"
        wanted = known.values
        if any(wanted.get(entity) != value for entity, value in values.items()) or not (some or len(wanted) == len(values)):
            return f"I1: partition {partition} is not the fold of its log up to {position(stored)}"
        if not self.broker.letters.issuperset(known.refused):
            return f"I4: a record of partition {partition} below {position(stored)} was refused, and there is no dead letter"
        return None

    def _store_lost(self, partition: int) -> None:
        self._highest.pop(partition, None)

    def look_at_store(self) -> None:
        """I1 of everything that is stored now."""
        for partition in self.server.partitions:
            verdict = self.state_verdict(partition, self.server.fence(partition), self.server.stored(partition))
            if verdict:
                self.fail(verdict)

    def _committed(self, commit: Commit, by: MirrorProcess) -> None:
        """I4: rows hang together, none twice; counters say where they end; and (B7) one commit carries what all partitions have."""
        verdict = ""
        before = self.table.commits[-2]
        for partition, rows in commit.rows.items():
            last = before.last.get(partition)
            for row in rows:
                if row.before is not last or (last is None and row.offset):
                    verdict = f"I4: row {row.offset} of partition {partition} stands after row {last.offset if last else 'none'}"
                last = row
        for partition in range(PARTITIONS):
            last, at = commit.last.get(partition), commit.counters.get(f"{TOPIC}-{partition}", 0)
            if at != (last.offset + 1 if last else 0):
                verdict = verdict or f"I4: the counter of partition {partition} says {at}, its last row is {last.offset if last else None}"
        if self._collected.get(by.name) == by.mirror.collected:
            verdict = verdict or f"B7: {by.name} commits twice for what it collected once"
        self._collected[by.name] = by.mirror.collected
        if self.story is not None:
            for partition, rows in commit.rows.items():
                offsets = f"{rows[0].offset}..{rows[-1].offset}" if rows else ""
                was, counter = before.counters.get(f"{TOPIC}-{partition}"), commit.counters.get(f"{TOPIC}-{partition}")
                self.note(by.name, "commits", partition, offsets, was, counter, verdict or "ok")
        if verdict:
            self.fail(verdict)
