"""One safeguard taken out at a time. What every history ends right with must go wrong without it, or be shown to be safe without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
from deltalake.exceptions import CommitFailedError
from faust.types import TP
from tests.simulation import history
from tests.simulation.filling.mutations import FILLING
from tests.simulation.lake import Handle, SimCountedTable
from tests.simulation.network import LATE_SECONDS, Process
from tests.simulation.patches import patched
from tests.simulation.store import Server, SimLink, SimWriter, Values
from tests.simulation.workers import Member
from tests.simulation.world import World

from tidemill.errors import FenceConflict, StoreError, Unavailable
from tidemill.kafka.dense_reader import DenseReader
from tidemill.kernel.packed import Patch
from tidemill.names import LogName
from tidemill.offline import delta
from tidemill.offline.delta import CountedTable
from tidemill.offline.mirror import Mirror
from tidemill.online.writer import APPLY
from tidemill_features import delivery
from tidemill_features.delivery import Chain, Delivery, Held, Slice
from tidemill_features.partition import Batch, Partition, StateCache
from tidemill_features.worker import Worker

SEEK_SECONDS = 3.0


class Mutation(NamedTuple):
    """What is changed: (owner, name, value)s. `safe`: why nothing goes wrong without it ("": it does). `filling`: whether it is looked for in
    histories of a catalogue that changes."""

    what: str
    changes: Sequence[tuple[Any, str, Any]]
    safe: str = ""
    filling: bool = False

    def applied(self) -> AbstractContextManager[None]:
        """The changes, for as long as the context lasts."""
        return patched(*self.changes)


# Feature computation

_positions, _admit, _init, _assign = Member.positions, Partition.admit, Partition.__init__, Member.assign


async def _from_committed(self: Member, partitions: Collection[TP], held: Held) -> dict[TP, int]:
    starts = await _positions(self, partitions, held)
    return {tp: self.group.committed.get(tp, start) for tp, start in starts.items()}


def _accept_all(self: Partition, start: int, records: Sequence[Any]) -> Any:
    return [self._decode(record.offset, record.key, record.value) for record in records]


def _accept_unchained(self: Partition, start: int, records: Sequence[Any]) -> Any:
    return [entry for entry in _accept_all(self, start, records) if entry.offset >= self.next]


def _accept_unproven(self: Partition, start: int, records: Sequence[Any]) -> Any:
    if start not in (self.next, self.next - 1):
        raise FenceConflict(self.where, expected=start, found=self.next)
    return _accept_unchained(self, start, records)


def _start_anywhere(self: Partition, log: range) -> int:
    self._from = max(self.next - 1, log.start)
    return self._from


def _remembering(self: Partition, kernel: Any, decode: Any, number: int, *args: Any) -> None:
    _init(self, kernel, decode, number, *args)
    self._cache = decode.__dict__.setdefault(number, StateCache(kernel))
    self._fold._find = self._cache.take


async def _ask_once(self: Worker, chain: Chain, ask: Callable[[], Awaitable[Any]]) -> Any:
    return await ask()


async def _acknowledge(self: Member, tp: TP, piece: Slice) -> None:
    with contextlib.suppress(Unavailable, StoreError):  # the agent's `finally` acknowledges it all the same
        await self.worker.handle(tp, piece)


async def _seek_first(self: Member, generation: int, partitions: set[TP]) -> None:
    """Faust's recovery task: seeks within `broker_request_timeout`, or ends without a word."""
    await self._stands()
    if generation != self.group.generation:
        return
    self.delivery.break_all()
    try:
        async with asyncio.timeout(SEEK_SECONDS):
            while not partitions <= self.delivery.placed | self.delivery._left_out.keys():
                try:
                    await self.delivery._place(partitions, self.client, self.loop.time())
                except Exception:
                    await asyncio.sleep(0.2)
    except TimeoutError:
        return
    self.generation, self.assigned, self.flowing = generation, partitions, True


async def _revoke_when_idle(self: Member, generation: int) -> None:
    """`stream_wait_empty=True`: what is in work is waited for, and goes on trying."""
    self.flowing = False
    while not self._queue.empty() or self.at_work:
        await asyncio.sleep(0.1)
    self.delivery.break_all()


async def _send_or_not(self: Worker, tp: TP, piece: Slice, batch: Batch, send: Any = Worker._send_refused) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await send(self, tp, piece, batch)


def _forget(self: Delivery) -> None:
    self._chains.clear()
    self._left_out.clear()
    self.done.clear()
    self._breaks += 1


def _cut_anyhow(chain: Chain, records: Sequence[Any]) -> Any:
    for i in range(0, len(records), delivery.SLICE_RECORDS):
        part = records[i : i + delivery.SLICE_RECORDS]
        chain.next = part[-1].offset + 1
        yield Slice(chain, part[0].offset, part)


_load, _apply, _put = SimWriter.load, SimWriter.apply, Server.put
_INCREMENT = b"\xffincrement"


def _after(before: bytes | None, value: bytes | Patch) -> bytes:
    if isinstance(value, bytes):
        return value
    whole = bytearray(before or b"")
    for offset, piece in value.pieces:
        whole[offset : offset + len(piece)] = piece
    return bytes(whole)


async def _load_bases(self: SimWriter, log: LogName, partition: int, entities: Sequence[bytes]) -> tuple[bytes | None, Values]:
    fence, values = await _load(self, log, partition, entities)
    bases = self.__dict__.setdefault("bases", {})
    bases.update({(partition, entity): values.get(entity) for entity in entities})
    return fence, values


async def _apply_increments(
    self: SimWriter, log: LogName, partition: int, expected: bytes | None, fence: bytes, values: Mapping[bytes, bytes | Patch]
) -> bool:
    """Sends what is added to each value: it gives `after` on top of `before`, and on top of anything else something else."""
    bases = self.__dict__.setdefault("bases", {})
    increments = {entity: (before := bases.get((partition, entity)), _after(before, value)) for entity, value in values.items()}
    sent = {entity: _INCREMENT + msgspec.msgpack.encode(increment) for entity, increment in increments.items()}
    applied = await _apply(self, log, partition, expected, fence, sent)
    bases.update({(partition, entity): after for entity, (_, after) in increments.items()})
    return applied


def _add(self: Server, key: bytes, value: bytes, lease_ms: int | None = None) -> None:
    if value.startswith(_INCREMENT):
        before, after = msgspec.msgpack.decode(value.removeprefix(_INCREMENT), type=tuple[bytes | None, bytes])
        value = after if self.get(key) == before else b"another sum"
    _put(self, key, value, lease_ms)


async def _batch_again(self: SimLink, lua: str, keys: Any, args: Any, script: Any = SimLink.script) -> Any:
    reply = await script(self, lua, keys, args)
    process = self.process
    if lua == APPLY and b'"builder":"w' not in args[0] and process.draw.random() < 0.3:
        process.loop.call_later(LATE_SECONDS * process.draw.random(), self.server.answer, process.name, lua, keys, args)
    return reply


async def _read_apart(world: World, client: Process, partition: int) -> tuple[bytes | None, Values]:
    """Two commands where one is needed."""
    fence, _ = await client.ask(world.server.link, world.server.load, partition, [])
    _, values = await client.ask(world.server.link, world.server.load, partition, list(world.server.stored(partition)))
    return fence, values


# The offline store


def _conflict_at_once(self: SimCountedTable, table: Handle, rows: Any, moves: Any, write: Any = SimCountedTable._write) -> None:
    try:
        write(self, table, rows, moves)
    except CommitFailedError:
        self._table = None
        raise FenceConflict("another writer", expected=0, found=0) from None


def _write_by_path(self: SimCountedTable, table: Handle, rows: Any, moves: Any, write: Any = SimCountedTable._write) -> None:
    self.process.busy(self.process.commit_seconds * self.process.draw.random())
    write(self, Handle(self.files), rows, moves)


def _commit_each(self: Mirror, read: dict[int, list[Any]], ends: dict[int, int], commit: Any = Mirror._commit) -> None:
    for partition, records in read.items():
        commit(self, {partition: records}, self.positions | {partition: ends[partition]})


def _dense_unproven(self: DenseReader, target: Any, records: list[Any], dense: Any = DenseReader._dense) -> list[Any]:
    if self._proofs.pop(target, None) is not None:
        self.next[target] -= 1
        return dense(self, target, records)[1:]  # type: ignore[no-any-return]
    return dense(self, target, records)  # type: ignore[no-any-return]


def _dense_anyhow(self: DenseReader, target: Any, records: list[Any]) -> list[Any]:
    self._proofs.pop(target, None)
    fresh = [record for record in records if record.offset >= self.next[target]]
    self.next[target] = records[-1].offset + 1
    return fresh


def _nothing(*args: Any) -> None:
    pass


MUTATIONS: dict[str, Mutation] = {
    "no-comparison": Mutation("the script writes whatever the fence says", [(Server, "fits", lambda self, key, expected: True)]),
    "committed": Mutation("B1: goes on from Kafka's committed offset", [(Member, "positions", _from_committed)]),
    "committed-believed": Mutation(
        "B1, and what comes is folded as it comes", [(Member, "positions", _from_committed), (Partition, "accept", _accept_all)]
    ),
    "exception-acknowledges": Mutation(
        "B2: the agent raises when the store does not answer, and Faust goes on with the next slice",
        [(Worker, "_insist", _ask_once), (Member, "handle", _acknowledge)],
    ),
    "slow-seek-freezes": Mutation("B3: places when Faust seeks, which gives up in silence", [(Member, "assign", _seek_first)]),
    "revoke-waits": Mutation("B4: a rebalance waits for the slice in work", [(Member, "revoke", _revoke_when_idle)]),
    "lazy-load": Mutation(
        "B5: entities are taken whatever fence they were read with",
        [(Partition, "admit", lambda self, fence, values: _admit(self, self.stored, values))],
    ),
    "stale-cache": Mutation("a fold that ran ahead of a refused write is used again", [(Partition, "__init__", _remembering)]),
    "no-chain": Mutation("a slice that does not follow is folded", [(Partition, "accept", _accept_unchained)]),
    "no-proof": Mutation("the record before the fence is not compared", [(Partition, "accept", _accept_unproven)]),
    "no-bounds": Mutation("the log's begin and end are not compared with the fence", [(Partition, "start", _start_anywhere)]),
    "holes": Mutation("what a consumer gives is not looked at for holes", [(delivery, "_slices", _cut_anyhow)]),
    "no-fence": Mutation(
        "the script does not write the fence", [(Server, "advance", lambda self, key, fence: self.put(key, self.get(key) or fence))]
    ),
    "no-clearing": Mutation("a partition begins among the entities of an earlier time", [(Server, "drop", lambda self, keys: 0)]),
    "letters-not-awaited": Mutation("a dead letter that could not be sent is given up", [(Worker, "_send_refused", _send_or_not)]),
    "torn-read": Mutation("a reader asks for the fence and the entities one after the other", [(history, "read", _read_apart)]),
    "increments": Mutation(
        "the script adds differences instead of writing values",
        [(SimWriter, "load", _load_bases), (SimWriter, "apply", _apply_increments), (Server, "put", _add)],
        safe="the comparison lets a difference only be added to what it was taken from",
    ),
    "blind-retry": Mutation(
        "a third of all batches arrive a second time, later",
        [(SimLink, "script", _batch_again)],
        safe="the first one moves the fence, and the second finds another than it expects, or the very batch that is missing",
    ),
    "blind-beginning": Mutation(
        "so does a third of all other requests: a beginning that comes again when its fence was deleted leaves the entities it did not see",
        [(World, "twice", 0.3)],
    ),
    "zombies-not-told": Mutation(
        "a slice in work is not told of a rebalance",
        [(Delivery, "break_all", _forget)],
        safe="the comparison judges it, whoever owns the partition by then",
    ),
    "unchecked-commit": Mutation("B6: a commit does not look at the counters", [(CountedTable, "_compare", _nothing)]),
    "unchecked-refreshed": Mutation(
        "B6: a commit trusts delta-rs to find conflicts, which a handle refreshed by another counter's commit does not",
        [(CountedTable, "_compare", _nothing), (SimCountedTable, "_write", _conflict_at_once)],
    ),
    "write-by-path": Mutation("B6: what was checked is not what the commit is based on", [(SimCountedTable, "_write", _write_by_path)]),
    "commit-each": Mutation("B7: one commit per partition", [(Mirror, "_commit", _commit_each)]),
    "offline-no-proof": Mutation("a mirror does not compare the last record it has", [(DenseReader, "_dense", _dense_unproven)]),
    "offline-holes": Mutation("a mirror takes what comes", [(DenseReader, "_dense", _dense_anyhow)]),
    "torn-stays": Mutation("a half-written commit is not taken out", [(delta, "drop_torn_commit", lambda table: False)]),
    **{name: Mutation(*taken, filling=True) for name, taken in FILLING.items()},
}
