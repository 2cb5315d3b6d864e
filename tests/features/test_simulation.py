"""Seeded histories of two workers and one store, stepped at every call to the store; and the same with one safeguard taken out.

The workers are the real ones. The store is a model of the two scripts that crashes, forgets, answers late or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Coroutine, Generator, Mapping, Sequence
from typing import Any

import pytest
import structlog
from faust.types import TP
from tests.features.letters import KeptLetters
from tests.features.test_partition import Row

from tidemill.delivery import Chain, Slice
from tidemill.errors import StoreUnavailable
from tidemill.fold import PartitionFold, entry_decoder
from tidemill.kernel import ViewKernel
from tidemill.names import LogName
from tidemill.online_store import OnlineWriter
from tidemill.project import Project
from tidemill.records import ViewRecord, encode
from tidemill.topics import view_topic
from tidemill_features import worker as worker_module
from tidemill_features.partition import Partition, StateCache
from tidemill_features.worker import Worker

from tidemill.aggregates import count, sum  # isort: skip
from tidemill.declarations import Event, FeatureView  # isort: skip

PAID = Event("paid", {"at": int, "card": str, "amount": float}, time="at")
VIEW = FeatureView("by_card", PAID, "card", [count(), sum("amount")], windows=["1h"], partitions=2)
PROJECT = Project("sim", {"paid": PAID}, {"by_card": VIEW})
KERNEL, DECODE = ViewKernel(VIEW), entry_decoder(VIEW)
SEEDS = 150


class Turn:
    """Awaited, it hands control to the scheduler once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ModelStore(OnlineWriter):
    """Fences and entities in a dict. Each call takes effect between two turns, and its reply may be lost."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.data: dict[tuple[int, bytes | None], bytes] = {}
        self.history: list[dict[tuple[int, bytes | None], bytes]] = [{}]

    async def eviction_policy(self) -> str:
        """As it must be."""
        return "noeviction"

    async def fences(self, partitions: Sequence[tuple[LogName, int]]) -> list[bytes | None]:
        """One MGET."""
        await Turn()
        found = [self.data.get((number, None)) for _, number in partitions]
        await Turn()
        return found

    async def load(self, log: LogName, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, dict[bytes, bytes]]:
        """One MGET."""
        await Turn()
        found = self.data.get((partition, None)), {e: self.data[partition, e] for e in entities if (partition, e) in self.data}
        await Turn()
        return found

    async def apply(self, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes]) -> bool:
        """One script; its reply may be lost."""
        await Turn()
        found = self.data.get((partition, None))
        if self.fits(found, expected):
            self.data = self.data | {(partition, entity): value for entity, value in values.items()} | {(partition, None): fence}
            self.history.append(self.data)
        await Turn()
        if self.draw.random() < 0.1:
            raise StoreUnavailable("the reply was lost")
        return self.fits(found, expected) or found == fence

    @staticmethod
    def fits(found: bytes | None, expected: bytes | None) -> bool:
        """The comparison of the script."""
        return found == expected

    async def begin(self, log: LogName, partition: int, fence: bytes) -> None:
        """Two commands."""
        await Turn()
        if (partition, None) not in self.data:
            self.clear(partition)
        await Turn()
        if (partition, None) not in self.data:
            self.data = {**self.data, (partition, None): fence}

    def clear(self, partition: int) -> None:
        """The script that deletes old entities."""
        self.data = {key: value for key, value in self.data.items() if key[0] != partition}


class Member:
    """A worker process with the consumer's part of the work: chains, slices, and slices that get lost."""

    def __init__(self, store: ModelStore, logs: dict[TP, list[Row]]) -> None:
        self.worker = Worker(PROJECT, store, cache_bytes=3_000, dead_letters=KeptLetters())
        self.logs, self.draw = logs, store.draw
        self.chains: dict[TP, Chain] = {}
        self.task: Coroutine[Any, Any, None] | None = None
        self.lossy = True

    def step(self) -> None:
        """Go on to the next turn."""
        self.task = self.task or self.run()
        try:
            self.task.send(None)
        except StopIteration:
            self.task = None

    async def run(self) -> None:
        """One turn of the consumer's loop: look after the chains, then deliver one slice."""
        placed = [tp for tp, chain in self.chains.items() if not chain.broken]
        if self.draw.random() < 0.1:
            for tp in await self.worker.displaced(placed):
                self.chains[tp].broken = True
        missing = [tp for tp in self.logs if tp not in self.chains or self.chains[tp].broken]
        starts = await self.worker.positions(missing, self.held) if missing else {}
        assert not self.worker.refused
        self.chains |= {tp: Chain(start) for tp, start in starts.items()}
        tp = self.draw.choice(list(self.logs))
        chain = self.chains[tp]
        records = self.logs[tp][chain.next : chain.next + self.draw.randint(1, 6)]
        piece = Slice(chain, chain.next, records)
        chain.next += len(records)
        if records and not (self.lossy and self.draw.random() < 0.1):
            await self.worker.handle(tp, piece)

    async def held(self, partitions: Collection[TP]) -> dict[TP, range]:
        """What the logs hold now."""
        return {tp: range(len(self.logs[tp])) for tp in partitions}

    def rebalance(self) -> None:
        """All chains end; a slice in work goes on as a zombie."""
        for chain in self.chains.values():
            chain.broken = True

    def done(self, store: ModelStore) -> bool:
        """Whether everything is in the store."""
        return all(number_next(store, tp.partition) == len(log) for tp, log in self.logs.items())


def number_next(store: ModelStore, partition: int) -> int:
    """The position of a stored fence."""
    stored = store.data.get((partition, None))
    return Partition(KERNEL, DECODE, partition, stored, 1).next


def history(seed: int, store_kind: type[ModelStore] = ModelStore) -> bool:
    """Run one history to its end; whether the store is then what it should be."""
    draw = random.Random(seed)
    store = store_kind(draw)
    logs: dict[TP, list[Row]] = {TP(view_topic(PROJECT.name, VIEW.log), number): [] for number in range(2)}
    members = [Member(store, logs), Member(store, logs)]
    for _ in range(150):
        act = draw.random()
        i = draw.randrange(2)
        if act < 0.2:
            log = logs[draw.choice(list(logs))]
            record = ViewRecord(60_000 * len(log), 0, (0, len(log)), {"amount": draw.random()})
            log.append(Row(len(log), b"card-%d" % draw.randrange(4), encode(record)))
        elif act < 0.22:
            members[i] = _restarted(members[i])
        elif act < 0.24:
            members[i].rebalance()
        elif act < 0.26:
            store.data = draw.choice(store.history)  # a replica that lagged behind, a log that lost its tail, or nothing at all
        else:
            members[i].step()
    for member in members:
        member.lossy = False
        member.rebalance()  # a slice lost as the last of all shows only when the next comes, or the watchdog restarts the worker
    for _ in range(3_000):
        if members[0].task is None and members[1].task is None and members[0].done(store):
            break
        members[draw.randrange(2)].step()
    else:
        return False
    return all(store_holds(store, tp.partition, log) for tp, log in logs.items())


def _restarted(member: Member) -> Member:
    if member.task is not None:
        member.task.close()
    fresh = Member.__new__(Member)
    fresh.__dict__ |= {
        **member.__dict__,
        "worker": Worker(PROJECT, member.worker._writer, 3_000, KeptLetters()),
        "chains": {},
        "task": None,
    }
    return fresh


def store_holds(store: ModelStore, partition: int, log: list[Row]) -> bool:
    """Whether a partition of the store equals the fold of its log."""
    fold, states = PartitionFold.start(KERNEL), dict[bytes, Any]()
    fold.advance([DECODE(*row) for row in log], states)
    wanted: dict[bytes | None, bytes] = {entity: KERNEL.encode(state) for entity, state in states.items()}
    wanted[None] = fold.fence.encode()
    return wanted == {key: value for (number, key), value in store.data.items() if number == partition}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once, since time is the scheduler's; and nobody reads the logs."""
    monkeypatch.setattr(worker_module, "log", structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(50)))
    monkeypatch.setattr(worker_module, "FIRST_PAUSE_SECONDS", 0)


def caught(store_kind: type[ModelStore] = ModelStore) -> int:
    """How many of the histories end wrong."""
    return len([seed for seed in range(SEEDS) if not history(seed, store_kind)])


def test_every_history_ends_right() -> None:
    """Crashes, zombies, lost replies, lost slices and a store that falls back: never a bit different."""
    assert caught() == 0


def test_without_the_comparison() -> None:
    """Writing whatever the fence says is caught."""

    class Careless(ModelStore):
        @staticmethod
        def fits(found: bytes | None, expected: bytes | None) -> bool:
            return True

    assert caught(Careless) > 0


def _patched(owner: type, name: str, make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, make(getattr(owner, name)))


def test_without_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding a slice that does not follow is caught."""

    def accept(self: Partition, start: int, records: Sequence[Any]) -> Any:
        return [self._decode(record.offset, record.key, record.value) for record in records if record.offset >= self.next]

    monkeypatch.setattr(Partition, "accept", accept)
    assert caught() > 0


def test_without_the_fence_read_with_the_entities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking entities that belong to another fence is caught: the fence may have come back to where it was."""
    _patched(Partition, "admit", lambda admit: lambda self, fence, values: admit(self, self.stored, values), monkeypatch)
    assert caught() > 0


def test_with_a_fold_that_ran_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding a refused batch a second time into the states it has already changed is caught."""
    caches: dict[tuple[Any, int], StateCache] = {}

    def init(make: Any) -> Any:
        def remembering(self: Partition, kernel: ViewKernel, decode: Any, number: int, *args: Any) -> None:
            make(self, kernel, decode, number, *args)
            self._cache = caches.setdefault((decode, number), StateCache(1 << 30))

        return remembering

    _patched(Partition, "__init__", init, monkeypatch)
    assert caught() > 0


class Handled(ModelStore):
    """A store whose fences are deleted by hand now and then."""

    async def fences(self, partitions: Sequence[tuple[LogName, int]]) -> list[bytes | None]:
        """Somebody may just have deleted them."""
        if self.draw.random() < 0.05:
            self.data = {key: value for key, value in self.data.items() if key[1] is not None}
        return await super().fences(partitions)


def test_fences_deleted_by_hand() -> None:
    """A partition whose fence is deleted, at any moment, is rebuilt."""
    assert caught(Handled) == 0


def test_without_clearing() -> None:
    """Beginning anew among the entities of an earlier time is caught."""

    class Dirty(Handled):
        def clear(self, partition: int) -> None:
            pass

    assert caught(Dirty) > 0
