"""A log's behaviour, the same over the twin and over a real Kafka: order, positions, and what is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.testing.twins import PARTITIONS, Log, Pair, TwinLog, kafka_log


@pytest.fixture(params=["twin", pytest.param("real", marks=pytest.mark.integration)])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[Log]:
    """Return an empty topic."""
    if request.param == "twin":
        yield TwinLog()
    else:
        async with kafka_log(request.getfixturevalue("kafka"), f"{request.getfixturevalue('topic_prefix')}.t") as real:
            yield real


def pairs(first: int, end: int) -> list[Pair]:
    """Records that tell their place."""
    return [(b"k%d" % (i % 3), b"v%d" % i) for i in range(first, end)]


async def test_offsets_are_dense(log: Log) -> None:
    """Records get the offsets that follow, whatever was written together, and each partition counts for itself."""
    assert await log.held(0) == (0, 0)
    assert [await log.append(0, pairs(0, 3)), await log.append(1, pairs(0, 1)), await log.append(0, pairs(3, 4))] == [
        (0, 2),
        (0, 0),
        (3, 3),
    ]
    assert [await log.held(partition) for partition in range(PARTITIONS)] == [(0, 4), (0, 1)]


async def test_read_in_the_order_written(log: Log) -> None:
    """Whoever reads from a position gets all records from there on, in order; at the end there are none."""
    await log.append(0, pairs(0, 40))
    await log.append(0, [(None, b"no key"), (b"no value", None)])
    whole = [(offset, key, value) for offset, (key, value) in enumerate([*pairs(0, 40), (None, b"no key"), (b"no value", None)])]
    for offset in (0, 1, 39, 42):
        assert await log.read(0, offset) == whole[offset:]
    assert await log.read(1, 0) == []


async def test_what_is_gone(log: Log) -> None:
    """After retention the log begins later, keeps its offsets and its end, and refuses a position that it does not hold any more."""
    await log.append(0, pairs(0, 10))
    await log.expire(0, 4)
    for _ in range(50):
        if await log.held(0) == (4, 10):
            break
        await asyncio.sleep(0.1)
    assert await log.held(0) == (4, 10)
    assert [offset for offset, *_ in await log.read(0, 4)] == list(range(4, 10))
    with pytest.raises(IndexError):
        await log.read(0, 3)
    assert await log.append(0, pairs(10, 11)) == (10, 10)
