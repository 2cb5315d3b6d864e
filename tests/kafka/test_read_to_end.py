"""Reading a topic to its end: all of it, once, whatever lies at its end, and never for ever."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete
from hypothesis import given
from hypothesis import strategies as st
from tests.frozen import freeze
from tests.kafka.test_client import OwnBroker, broker, producing, topic
from tests.offline.lake import numbered
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.kafka.admin import admin
from tidemill.kafka.client import REQUEST_TIMEOUT_MS, start_producer, started_consumer, started_producer
from tidemill.kafka.read_to_end import decoded_of, logged, read_to_end, read_topic
from tidemill.kafka.reader import OccasionalReader, Reader
from tidemill.kafka.topics import offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.records import decoder
from tidemill.runtime.settings import KafkaSettings

__all__ = ["broker"]
NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1")
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
number = decoder(int).decode


class Scripted:
    """A reader whose slices are known: each is what `fetch` gives next, with where it leaves each partition."""

    def __init__(self, ends: Mapping[TopicPartition, int], slices: Sequence[tuple[dict[TopicPartition, int], int]]) -> None:
        self.next = dict.fromkeys(ends, 0)
        self._ends, self._slices = dict(ends), list(slices)

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of each partition."""
        return self._ends

    async def fetch(self, _wait_seconds: float, _most: int) -> dict[TopicPartition, list[Any]]:
        """Moves on; a move is a number of offsets, of which the last are no records."""
        if not self._slices:
            return {}
        moves, markers = self._slices.pop(0)
        fetched = {}
        for target, count in moves.items():
            records = list(range(self.next[target], self.next[target] + max(count - markers, 0)))
            self.next[target] += count
            if records:
                fetched[target] = records
        return fetched


async def slices(reader: Any, silent_seconds: float, pause_seconds: float = 0) -> int:
    """How many slices it takes."""
    count = 0
    async for _ in read_to_end(reader, silent_seconds=silent_seconds):
        count += 1
        await asyncio.sleep(pause_seconds)
    return count


@given(
    st.lists(st.tuples(st.fixed_dictionaries({T0: st.integers(0, 5), T1: st.integers(0, 5)}), st.integers(0, 2)), max_size=20), st.data()
)
def test_it_ends_when_all_positions_are_reached(moves: list[tuple[dict[TopicPartition, int], int]], data: st.DataObject) -> None:
    """By positions, not by records: offsets at the end that are no records do not hold it up, and nothing is fetched after the end."""
    totals = {target: sum(move[target] for move, _ in moves) for target in (T0, T1)}
    ends = {target: data.draw(st.integers(0, total)) for target, total in totals.items()}
    turns = asyncio.run(slices(Scripted(ends, moves), 60))
    reached = [0, 0]
    needed = 0
    while reached[0] < ends[T0] or reached[1] < ends[T1]:
        reached = [reached[0] + moves[needed][0][T0], reached[1] + moves[needed][0][T1]]
        needed += 1
    assert turns == needed


async def test_silence_is_an_error() -> None:
    """When nothing comes although something is missing, it says what is missing after the deadline."""
    reader = Scripted({T0: 5, T1: 0}, [({T0: 3, T1: 0}, 0)])
    with pytest.raises(KafkaUnavailable, match=r"t\[0\] goes up to 5, but nothing has come from 3 on for 0.01 s"):
        await slices(reader, 0.01, pause_seconds=0.006)


async def test_silence_is_counted_anew_with_every_step() -> None:
    """A slow topic is no silent one."""
    reader = Scripted({T0: 20}, [({T0: 1}, 1)] * 20)
    await slices(reader, 0.25, pause_seconds=0.012)
    assert reader.next == {T0: 20}


def test_what_cannot_be_decoded_is_told_and_passed_over() -> None:
    """Bad records are told one by one with the reason, the others come in order; who is told may raise instead."""
    values = [b"1", b"", b"x", b"2", b"\xff", b"[" * 100_000, b"3"]
    records = numbered([(None, value) for value in values])
    told: list[int] = []
    assert list(decoded_of({T0: records}, number, lambda record, _error: told.append(record.offset))) == [1, 2, 3]
    assert told == [1, 2, 4, 5]

    def refuse(record: Any, error: Exception) -> None:
        raise TopicMismatch(f"{record.offset}: {error}")

    with pytest.raises(TopicMismatch, match="1: "):
        list(decoded_of({T0: records}, number, refuse))


async def test_kafka_that_is_not_there() -> None:
    """Whatever is started without a broker raises KafkaUnavailable with the address, and leaves nothing open."""
    with pytest.raises(KafkaUnavailable, match=r"Kafka at 127\.0\.0\.1:1: KafkaConnectionError.*start it"):
        await read_topic(NOWHERE, "t", number, logged)
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        async with Reader(NOWHERE, {T0: 0}):
            pass
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        await start_producer(NOWHERE)
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        async with started_producer(NOWHERE):
            pass
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        async with started_consumer(NOWHERE):
            pass


async def write(kafka: str, name: str, *values: bytes) -> None:
    """Records in partition 0."""
    async with started_producer(KafkaSettings(bootstrap_servers=kafka)) as made:
        await send_wave(made, {(name, 0): [(None, value, []) for value in values]})


@pytest.mark.integration
async def test_who_reads_now_and_then_is_answered_at_once(kafka: str, topic_prefix: str) -> None:
    """Between two readings nothing is asked of the broker, which would keep the next question until a record comes: here longer than any request may take."""
    name, settings, waits = await topic(kafka, topic_prefix), KafkaSettings(bootstrap_servers=kafka), 2 * REQUEST_TIMEOUT_MS
    await write(kafka, name, b"1")
    read: list[int] = []
    async with OccasionalReader(settings, {TopicPartition(name, 0): 0}, fetch_max_wait_ms=waits) as reader:
        for value in range(2, 5):
            async for fetched in read_to_end(reader):
                read += decoded_of(fetched, number, logged)
            await asyncio.sleep(0.05)  # in which another reader would ask for more
            await write(kafka, name, b"%d" % value)
    assert read == [1, 2, 3]


@pytest.fixture
async def transactions(kafka: str, topic_prefix: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer of transactions."""
    made = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=topic_prefix, request_timeout_ms=REQUEST_TIMEOUT_MS)
    await made.start()
    yield made
    await made.stop()


@pytest.mark.integration
async def test_a_whole_topic(kafka: str, topic_prefix: str) -> None:
    """A topic that is not there or is empty holds nothing; else all its records come, those that cannot be decoded are told."""
    settings, told = KafkaSettings(bootstrap_servers=kafka), list[int]()
    assert await read_topic(settings, topic_prefix, number, logged) == []
    name = await topic(kafka, topic_prefix)
    assert await read_topic(settings, name, number, logged) == []
    await write(kafka, name, *(b"%d" % i if i % 10 else b"junk" for i in range(1000)))
    found = await read_topic(settings, name, number, lambda record, _error: told.append(record.offset))
    assert found == [i for i in range(1000) if i % 10]
    assert told == list(range(0, 1000, 10))


@pytest.mark.integration
async def test_a_topic_that_lost_its_beginning_or_everything(kafka: str, topic_prefix: str) -> None:
    """What was deleted is passed over, also when a reader asks for it, and also when nothing is left."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, topic_prefix)
    place = TopicPartition(name, 0)
    await write(kafka, name, *(b"%d" % i for i in range(10)))
    async with admin(settings) as client:
        await client.delete_records({place: RecordsToDelete(4)})
    assert await read_topic(settings, name, number, logged) == [4, 5, 6, 7, 8, 9]
    async with Reader(settings, {place: 0}) as reader:
        assert reader.next == {place: 4}
    async with admin(settings) as client:
        await client.delete_records({place: RecordsToDelete(10)})
    assert await read_topic(settings, name, number, logged) == []


@pytest.mark.integration
async def test_records_that_were_taken_back_at_the_end(kafka: str, topic_prefix: str, transactions: AIOKafkaProducer) -> None:
    """A topic whose last offsets are an aborted transaction and its mark is read to its end all the same, then followed past it."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, topic_prefix)
    place = TopicPartition(name, 0)
    await write(kafka, name, b"1", b"2")
    await transactions.begin_transaction()
    for value in (b"3", b"4"):
        await transactions.send_and_wait(name, value, partition=0)
    await transactions.abort_transaction()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await offset_ranges(settings, name))[
            place
        ].end != 5:  # the mark is written soon after, until then the log ends before the transaction
            await asyncio.sleep(0.05)
    async with asyncio.timeout(PATIENCE_SECONDS):  # sooner than the deadline that would end it otherwise
        async with Reader(settings, {place: 0}) as reader:
            found = [record async for fetched in read_to_end(reader, silent_seconds=3600) for record in decoded_of(fetched, number, logged)]
            assert (found, reader.next) == ([1, 2], {place: 5})
            await write(kafka, name, b"6")
            assert list(decoded_of(await reader.fetch(10, 10), number, logged)) == [6]
        assert await read_topic(settings, name, number, logged) == [1, 2, 6]


@pytest.mark.integration
async def test_the_end_is_the_one_at_the_beginning(kafka: str, topic_prefix: str) -> None:
    """Who writes all the time does not keep a reader from its end."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, topic_prefix)
    await write(kafka, name, *(b"%d" % i for i in range(100)))
    async with producing(kafka) as made:

        async def on() -> None:
            for i in range(100, 100_000):
                await made.send_and_wait(name, b"%d" % i, partition=0)

        writing = asyncio.create_task(on())
        found = await read_topic(settings, name, number, logged)
        assert not writing.done()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert found == list(range(len(found)))
    assert len(found) >= 100


@pytest.mark.integration
async def test_the_ends_when_reading_began(kafka: str, topic_prefix: str) -> None:
    """A reader remembers them. Reading up to them asks Kafka nothing: else the question would wait until a fetch has its records."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, topic_prefix)
    place = TopicPartition(name, 0)
    async with Reader(settings, {place: 0}, fetch_max_wait_ms=8_000) as reader:
        assert reader.first_ends == {place: 0}
        async with asyncio.timeout(6):  # shorter than a fetch
            assert [fetched async for fetched in read_to_end(reader, reader.first_ends)] == []
    await write(kafka, name, b"1", b"2")
    async with Reader(settings, {place: 1}) as reader:
        await write(kafka, name, b"3")
        assert reader.first_ends == {place: 2}


@pytest.mark.integration
async def test_kafka_goes_away_meanwhile(broker: OwnBroker) -> None:
    """A broker that is stopped while a topic is read: KafkaUnavailable after the deadline, not for ever; once it is back, all is read."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap)
    await broker.answers()
    name = await topic(broker.bootstrap, "away")
    place = TopicPartition(name, 0)
    await write(broker.bootstrap, name, b"1", b"2")
    async with Reader(settings, {place: 0}) as reader:
        assert [fetched async for fetched in read_to_end(reader)]
        freeze(broker.process.pid)
        try:
            with pytest.raises(KafkaUnavailable, match=r"away\[0\] goes up to 5, but nothing has come from 2 on for 1 s"):
                async for _ in read_to_end(reader, {place: 5}, silent_seconds=1):
                    pass
            with pytest.raises(KafkaUnavailable, match=r"Kafka at .*: TimeoutError"):
                await start_producer(settings, start_seconds=1)
        finally:
            broker.process.send_signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                assert await read_topic(settings, name, number, logged) == [1, 2]
                return
            except KafkaUnavailable as error:  # a broker that stood still for long has lost its lead, and takes it again; until then it may
                assert "without a leader" in str(error) or "NodeNotReady" in str(error)  # noqa: PT017  # not name itself either
                await asyncio.sleep(0.2)
