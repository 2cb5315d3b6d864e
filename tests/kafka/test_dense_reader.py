"""A reader gives out each record once, in order, and nothing past a hole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import TopicPartition
from tests.offline.lake import lake, make_topics, numbered, send

from tidemill.checksums import proof_of
from tidemill.errors import KafkaUnavailable, TopicRecreated
from tidemill.kafka.admin import admin
from tidemill.kafka.dense_reader import DenseReader
from tidemill.runtime.settings import KafkaSettings

TARGET = TopicPartition("t", 0)
NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1")


@pytest.fixture
async def fed() -> AsyncIterator[Any]:
    """Feeds slices to a reader that is at offset 5, after a record whose checksum is known; no broker takes part."""
    reader = DenseReader(NOWHERE, {TARGET: 5}, {TARGET: proof_of(b"k", b"4")})
    yield lambda first, *values: [record.offset for record in reader._dense(TARGET, numbered([(b"k", value) for value in values], first))]
    await reader.stop()


async def test_record_before_is_compared_and_left_out(fed: Any) -> None:
    """The first slice begins with the last record that was stored; what follows must be dense."""
    assert fed(4, b"4", b"5", b"6") == [5, 6]
    assert fed(7, b"7") == [7]


@pytest.mark.parametrize(("first", "values"), [(4, [b"other"]), (5, [b"5"]), (3, [b"3", b"4"])])
async def test_another_record_before_is_refused(fed: Any, first: int, values: list[bytes]) -> None:
    """A topic whose record before the position is another one, or not given, is refused."""
    with pytest.raises(TopicRecreated, match=r"t\[0\]"):
        fed(first, *values)


async def test_holes_and_repetitions_are_refused(fed: Any) -> None:
    """A slice that does not start where the last ended is refused."""
    assert fed(4, b"4", b"5") == [5]
    for first in (5, 7):
        with pytest.raises(TopicRecreated):
            fed(first, b"x")


async def test_hole_inside_a_slice_is_refused() -> None:
    """A slice with a hole in it is refused."""
    reader = DenseReader(NOWHERE, {TARGET: 0}, {})
    records = [*numbered([(b"k", b"0")]), *numbered([(b"k", b"2")], 2)]
    with pytest.raises(TopicRecreated, match="gives 2 records from 0 to 2"):
        reader._dense(TARGET, records)
    await reader.stop()


async def test_kafka_away_is_told() -> None:
    """Without a broker, start says so, and stop still works."""
    reader = DenseReader(NOWHERE, {TARGET: 0}, {})
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        await reader.start()
    await reader.stop()


@pytest.mark.integration
async def test_positions_outside_the_log_are_refused(kafka: str, topic_prefix: str) -> None:
    """A position above the end, or below what the topic still holds, is an error; at its very beginning nothing is compared."""
    settings, target = KafkaSettings(bootstrap_servers=kafka), TopicPartition(f"{topic_prefix}.outcomes", 0)
    await make_topics(kafka, lake(topic_prefix))
    await send(kafka, {(target.topic, 0): [(b"k", b"%d" % i) for i in range(10)]})
    async with admin(settings) as client:
        await client.delete_records({target: _offset(4)})
    for position, found in ((3, "begins at 4"), (11, "ends at 10")):
        reader = DenseReader(settings, {target: position}, {})
        with pytest.raises(TopicRecreated, match=found) as caught:
            await reader.start()
        assert ("restore them" in caught.value.mend) is (position == 3)  # a table begun anew would lack them too
        await reader.stop()
    reader = DenseReader(settings, {target: 4}, {target: 1})
    await reader.start()
    assert [record.offset for record in (await reader.fetch(10, 100))[target]] == [4, 5, 6, 7, 8, 9]
    assert reader.next == {target: 10}
    assert await reader.fetch(0, 100) == {}
    await reader.stop()


def _offset(offset: int) -> Any:
    from aiokafka.admin.records_to_delete import RecordsToDelete

    return RecordsToDelete(offset)
