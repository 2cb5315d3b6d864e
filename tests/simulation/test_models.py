"""What the simulator models behaves as the real thing: the same random calls to both give the same answers."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from aiokafka.errors import KafkaConnectionError
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError
from faust.types import TP
from tests.simulation.broker import Broker, Client
from tests.simulation.lake import Handle, Table
from tests.simulation.loop import SimLoop
from tests.simulation.network import Process
from tests.simulation.store import Server, SimWriter

from tidemill.errors import CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.packed import Patch
from tidemill.names import log_name
from tidemill.online.keys import fence_key
from tidemill.online.writer import OnlineWriter
from tidemill.redis.link import RedisLink

LOG = log_name("v", 2)
FENCES = [Fence(number, "d", 2).encode() for number in range(3)]
ENTITIES = [b"a", b"b", b"c"]


def _value(draw: random.Random) -> bytes | Patch:
    """A whole value, or a change of one that has a certain length."""
    length = draw.randint(3, 5)
    if draw.random() < 0.5:
        return draw.randbytes(length)
    return Patch(length, [(draw.randrange(2), draw.randbytes(1)), (2, draw.randbytes(1))])


async def _apply(writer: OnlineWriter, *call: Any) -> object:
    try:
        return await writer.apply(*call)
    except CorruptState:
        return "altered"


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(5))
async def test_the_store_is_as_its_scripts(redis_url: str, seed: int) -> None:
    """Writes from right and wrong fences, whole and in place, beginnings and reads: a Valkey and the model answer alike."""
    draw = random.Random(seed)
    server = Server(SimLoop(), "p", LOG, 2)  # type: ignore[abstract]
    model = SimWriter(Process(server.loop, draw, "x"), server, "p")

    async def at_once(link: Any, effect: Any, *args: Any) -> Any:
        return effect(*args)

    model.process.ask = at_once  # type: ignore[method-assign]
    async with RedisLink(redis_url) as link:
        real, answers = OnlineWriter(link, "p"), set[object]()
        for _ in range(300):
            partition = draw.randrange(2)
            values = {entity: _value(draw) for entity in draw.sample(ENTITIES, draw.randint(1, 3))}
            call = (LOG, partition, draw.choice([None, *FENCES]), draw.choice(FENCES), values)
            given = [await _apply(writer, *call) for writer in (real, model)]
            assert given[0] == given[1]
            answers.add(given[0])
            if draw.random() < 0.1:
                for writer in (real, model):
                    await writer.begin(LOG, partition, FENCES[0])
            if draw.random() < 0.1:
                await link.call(b"DEL", fence_key("p", LOG, partition))
                server.delete_fence(partition)
            assert await real.load(LOG, partition, ENTITIES) == await model.load(LOG, partition, ENTITIES)
        assert answers == {True, False, "altered"}


ROWS = pa.table({"n": [1]})


class Real:
    """A handle of a real table, with the model's calls."""

    def __init__(self, path: Path) -> None:
        self._table = DeltaTable(path)

    def commit(self, moves: dict[str, int]) -> None:
        """Append a row."""
        transactions = [Transaction(name, version) for name, version in moves.items()]
        write_deltalake(self._table, ROWS, mode="append", commit_properties=CommitProperties(app_transactions=transactions))

    def counter(self, name: str) -> int | None:
        """An app transaction as the handle knows it."""
        return self._table.transaction_version(name)


class Modelled:
    """A handle of the model."""

    def __init__(self, table: Table) -> None:
        self._handle = Handle(table)

    def commit(self, moves: dict[str, int]) -> None:
        """Append nothing."""
        self._handle.table.commit(self._handle.base, {}, moves, SimpleNamespace())  # type: ignore[arg-type]
        self._handle.base = self._handle.table.version

    def counter(self, name: str) -> int | None:
        """An app transaction as the handle knows it."""
        return self._handle.transaction_version(name)


def _committed(handle: Real | Modelled, moves: dict[str, int]) -> bool:
    try:
        handle.commit(moves)
    except CommitFailedError:
        return False
    return True


@pytest.mark.parametrize("seed", range(6))
def test_the_table_is_as_delta_rs_has_it(tmp_path: Path, seed: int) -> None:
    """Two handles, fresh, stale and refreshed, commit higher, equal and lower counters: delta-rs and the model accept and refuse alike."""
    draw = random.Random(seed)
    DeltaTable.create(tmp_path, pa.schema([("n", pa.int64())]))
    table, accepted = Table("t"), list[bool]()
    handles: list[tuple[Real, Modelled]] = [(Real(tmp_path), Modelled(table)) for _ in range(2)]
    for _ in range(25):
        who = draw.randrange(2)
        if draw.random() < 0.25:
            handles[who] = Real(tmp_path), Modelled(table)
        moves = {name: draw.randrange(4) for name in draw.sample(["a", "b", "c"], draw.randint(1, 2))}
        outcome = [_committed(handle, moves) for handle in handles[who]]
        assert outcome[0] == outcome[1]
        accepted.append(outcome[0])
        if not outcome[0]:
            handles[who] = Real(tmp_path), Modelled(table)
        for name in ("a", "b", "c"):
            assert handles[who][0].counter(name) == handles[who][1].counter(name)
    assert set(accepted) == {True, False}


async def test_only_who_hears_of_it_connects_anew() -> None:
    """After a log was replaced every request on the old connection fails, until its client has heard of one that failed."""
    loop, tp = SimLoop(), TP("t", 0)  # type: ignore[abstract]
    broker = Broker("t", 1, random.Random(0))
    broker.logs[tp].append(b"k", b"v")
    client = Client(Process(loop, random.Random(0), "x"), broker)
    arrived: list[tuple[Any, ...]] = []

    async def at_once(link: Any, effect: Any, *args: Any) -> Any:
        arrived.append((effect, *args))
        return effect(*args)

    client.process.ask = at_once  # type: ignore[method-assign]
    assert await client.held([tp]) == {tp: range(1)}
    broker.epoch += 1
    for _ in range(2):  # what is under way comes late, and nobody hears what becomes of it
        with pytest.raises(KafkaConnectionError):
            arrived[0][0](*arrived[0][1:])
    with pytest.raises(KafkaConnectionError):
        await client.held([tp])
    assert await client.held([tp]) == {tp: range(1)}
