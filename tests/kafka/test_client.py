"""Kafka helpers against a real broker: waves in order, refusals, positions; and a broker of the test's own that is killed."""

import asyncio
import contextlib
import inspect
import signal
import subprocess
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.sender import Sender
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.frozen import freeze
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import KafkaRefused, KafkaUnavailable, RecordTooLarge
from tidemill.kafka.admin import admin, wait_for_kafka
from tidemill.kafka.client import FETCH_BYTES, MAX_BATCH_BYTES, close_producer, consumer, producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.kafka.waves import Record, send_wave
from tidemill.local import kafka as local_kafka
from tidemill.local.processes import free_port, last_lines
from tidemill.runtime.settings import KafkaSettings

PLAIN = {"cleanup.policy": "delete", "max.message.bytes": str(MAX_BATCH_BYTES)}


@asynccontextmanager
async def producing(kafka: str, **overrides: object) -> AsyncIterator[AIOKafkaProducer]:
    """Give a started producer."""
    made = producer(KafkaSettings(bootstrap_servers=kafka), **overrides)
    await made.start()
    try:
        yield made
    finally:
        await close_producer(made)


async def topic(kafka: str, name: str, partitions: int = 1) -> str:
    """Make a topic and return its name."""
    await ensure_topics(KafkaSettings(bootstrap_servers=kafka), {name: TopicSpec(partitions, PLAIN)})
    return name


async def read(kafka: str, name: str) -> dict[int, list[tuple[int, Record]]]:
    """Read a topic from begin to end: partition -> (offset, record)s."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    ends = {partition: held.end for partition, held in (await offset_ranges(settings, name)).items()}
    reader = consumer(settings)
    await reader.start()
    found: dict[int, list[tuple[int, Record]]] = defaultdict(list)
    try:
        reader.assign(list(ends))
        await reader.seek_to_beginning()
        async with asyncio.timeout(180):
            while any([await reader.position(partition) < end for partition, end in ends.items()]):
                for partition, records in (await reader.getmany(timeout_ms=200)).items():
                    found[partition.partition] += [(r.offset, (r.key, r.value, list(r.headers))) for r in records]
    finally:
        await reader.stop()
    return found


def numbered(count: int, size: int = 1) -> list[Record]:
    """Return records that carry their number."""
    return [(b"key%d" % number, b"%d:" % number + b"x" * size, [("number", b"%d" % number)]) for number in range(count)]


def test_the_private_parts_in_use_exist() -> None:
    """What the helpers touch inside aiokafka is there: a new version that moves it fails here, not in production."""
    assert "batch_ttl" in inspect.signature(MessageAccumulator.__init__).parameters
    source = inspect.getsource(MessageAccumulator)
    for name in ("self._batch_ttl", "self._pending_batches", "self._batches", "def fail_all"):
        assert name in source
    assert "await self._metadata_update(self.cluster, topics)" in inspect.getsource(AIOKafkaClient._md_synchronizer)
    assert "_sender_task" in inspect.getsource(Sender.sender_task.fget)
    batch = BatchBuilder(1000, 0)
    assert batch._builder.append(0, 1, b"k", b"v", []) is not None
    assert batch._relative_offset == 0


async def test_options_are_those_the_guarantees_need() -> None:
    """Idempotent, all replicas, batches never expire; fetches hold two of the largest batches; nothing is reset or committed silently."""
    settings = KafkaSettings(bootstrap_servers="nowhere:1")
    made = producer(settings)
    assert made._txn_manager is not None
    assert made._sender._acks == -1
    assert made._message_accumulator._batch_ttl == float("inf")
    await made.stop()
    reader, narrow = consumer(settings), consumer(settings, max_partition_fetch_bytes=1)
    assert reader._max_partition_fetch_bytes == FETCH_BYTES >= 2 * MAX_BATCH_BYTES
    assert reader._auto_offset_reset == "none"
    assert reader._enable_auto_commit is False
    assert narrow._max_partition_fetch_bytes == 1
    await asyncio.gather(reader.stop(), narrow.stop())


async def test_waiting_for_a_broker_that_is_not_there_ends_with_the_reason() -> None:
    """The address, the time and the variable to correct are named."""
    port = free_port(set())
    with pytest.raises(KafkaUnavailable, match=rf"127\.0\.0\.1:{port} was not ready after 0\.5 s: .*Unable to bootstrap") as caught:
        await wait_for_kafka(KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}"), 0.5)
    assert "KAFKA_BOOTSTRAP_SERVERS" in caught.value.mend


@pytest.mark.integration
async def test_a_wave_is_written_in_order_with_its_offsets(kafka: str, topic_prefix: str) -> None:
    """Each partition holds its records in order, and first and last offset are where they are; an empty partition is left out."""
    name = await topic(kafka, f"{topic_prefix}.wave", 3)
    async with producing(kafka) as to:
        wave = {(name, 0): numbered(10), (name, 1): numbered(2500, 200), (name, 2): []}
        assert await send_wave(to, wave) == {(name, 0): (0, 9), (name, 1): (0, 2499)}
        assert await send_wave(to, wave) == {(name, 0): (10, 19), (name, 1): (2500, 4999)}
        assert await send_wave(to, {}) == {}
    found = await read(kafka, name)
    for partition in (0, 1):
        assert found[partition] == list(enumerate([*wave[name, partition], *wave[name, partition]]))
    assert 2 not in found


@pytest.mark.integration
async def test_a_wave_larger_than_a_batch_is_split(kafka: str, topic_prefix: str) -> None:
    """Records of together many megabytes, some of nearly the largest size, arrive whole, in order, densely numbered."""
    name = await topic(kafka, f"{topic_prefix}.large", 2)
    records = [record for size in (900_000, 10, 600_000, 1_048_000, 1, 1, 500_000) for record in numbered(3, size)]
    async with producing(kafka) as to:
        offsets = await send_wave(to, {(name, 0): records, (name, 1): records[::-1]})
    assert offsets == {(name, 0): (0, len(records) - 1), (name, 1): (0, len(records) - 1)}
    found = await read(kafka, name)
    assert found[0] == list(enumerate(records))
    assert found[1] == list(enumerate(records[::-1]))


@pytest.mark.integration
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    waves=st.lists(
        st.dictionaries(
            st.integers(0, 2),
            st.lists(st.tuples(st.none() | st.binary(max_size=5), st.binary(max_size=400), st.just([])), max_size=30),
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_waves_read_back_as_they_were_sent(kafka: str, waves: list[dict[int, list[Record]]]) -> None:
    """Differential: the topic is the concatenation of the waves, for any keys, values, sizes and tiny batches."""

    async def main() -> None:
        name = await topic(kafka, f"any.{uuid.uuid4().hex}", 3)
        expected: dict[int, list[Record]] = defaultdict(list)
        async with producing(kafka, max_batch_size=500) as to:
            for wave in waves:
                offsets = await send_wave(to, {(name, partition): records for partition, records in wave.items()})
                for partition, records in wave.items():
                    if records:
                        start = len(expected[partition])
                        assert offsets[name, partition] == (start, start + len(records) - 1)
                        expected[partition] += records
        assert await read(kafka, name) == {partition: list(enumerate(records)) for partition, records in expected.items() if records}

    asyncio.run(main())


@pytest.mark.integration
async def test_a_record_too_large_stops_the_wave_before_anything_is_sent(kafka: str, topic_prefix: str) -> None:
    """The error names size and place, no partition got anything, and the producer still works."""
    name = await topic(kafka, f"{topic_prefix}.toolarge", 2)
    async with producing(kafka) as to:
        with pytest.raises(RecordTooLarge, match=r"toolarge\[1\] exceeds the limit of 1048588") as caught:
            await send_wave(to, {(name, 0): numbered(3), (name, 1): [*numbered(3), (None, b"x" * MAX_BATCH_BYTES, [])]})
        assert caught.value.size_bytes > MAX_BATCH_BYTES
        assert await send_wave(to, {(name, 0): numbered(1), (name, 1): numbered(1)}) == {(name, 0): (0, 0), (name, 1): (0, 0)}


@pytest.mark.integration
async def test_a_refusal_is_told_and_a_new_producer_goes_on(kafka: str, topic_prefix: str) -> None:
    """A broker that takes less than we send refuses for good: nothing of it is written, and a new producer writes what fits."""
    name, settings = f"{topic_prefix}.narrow", KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(settings, {name: TopicSpec(1, {"max.message.bytes": "2000"})})
    async with producing(kafka) as to:
        assert await send_wave(to, {(name, 0): numbered(1)}) == {(name, 0): (0, 0)}
        with pytest.raises(KafkaRefused, match="MessageSizeTooLarge") as caught:
            await send_wave(to, {(name, 0): numbered(1, 5000)})
        assert "start another" in caught.value.mend
        with pytest.raises(KafkaRefused, match="OutOfOrderSequence"):
            await send_wave(to, {(name, 0): numbered(1)})
        with pytest.raises(KafkaRefused, match="Unrecognized partition"):
            await send_wave(to, {(name, 7): numbered(1)})
    async with producing(kafka) as to:
        assert await send_wave(to, {(name, 0): numbered(1)}) == {(name, 0): (1, 1)}


@pytest.mark.integration
async def test_a_position_outside_the_log_is_an_error(kafka: str, topic_prefix: str) -> None:
    """Nothing is reset silently."""
    name = await topic(kafka, f"{topic_prefix}.range")
    async with producing(kafka) as to:
        await send_wave(to, {(name, 0): numbered(5)})
    reader: AIOKafkaConsumer = consumer(KafkaSettings(bootstrap_servers=kafka))
    await reader.start()
    try:
        partition = TopicPartition(name, 0)
        reader.assign([partition])
        reader.seek(partition, 99)
        with pytest.raises(OffsetOutOfRangeError):
            await reader.getmany(timeout_ms=20_000)
    finally:
        await reader.stop()


@pytest.mark.integration
async def test_committed_offsets_lie_in_small_segments(kafka: str) -> None:
    """A broker that starts again reads all of them before it leads a group; only closed segments are compacted."""
    settings, partition = KafkaSettings(bootstrap_servers=kafka), TopicPartition(await topic(kafka, "offsets"), 0)
    reader: AIOKafkaConsumer = consumer(settings, group="offsets")
    await reader.start()
    reader.assign([partition])
    await reader.commit({partition: 1})
    await reader.stop()
    async with admin(settings) as asked:
        (answer,) = await asked.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "__consumer_offsets")])
    configs = {name: value for name, value, *_ in answer.resources[0][4]}
    assert configs["segment.bytes"] == str(1 << 20)
    assert configs["cleanup.policy"] == "compact"


class OwnBroker:
    """A broker of the test's own, to be stopped and killed."""

    def __init__(self, folder: Path) -> None:
        taken: set[int] = set()
        port = free_port(taken)
        self.folder, self.bootstrap = folder, f"127.0.0.1:{port}"
        local_kafka.prepare(folder, port, free_port(taken))
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it, without waiting."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(local_kafka.command(), cwd=self.folder, stdout=log, stderr=log)

    async def answers(self) -> None:
        """Wait until it does. Raises AssertionError with the end of its log."""
        try:
            await wait_for_kafka(KafkaSettings(bootstrap_servers=self.bootstrap), PATIENCE_SECONDS)
        except KafkaUnavailable as error:
            code, log = self.process.poll(), last_lines(self.folder / "log", 40)
            raise AssertionError(f"{error}; its process {'runs' if code is None else f'ended with {code}'}; its log:\n{log}") from error

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order: it tells its clients that partitions have no leader any more."""
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    """Return a running broker of this module alone."""
    made = OwnBroker(tmp_path_factory.mktemp("own-broker"))
    made.start()
    yield made
    made.kill()


@pytest.mark.integration
async def test_a_wave_waits_out_a_killed_broker(broker: OwnBroker) -> None:
    """The broker is killed twice while waves run: every record is written once, in order, and every wave knows its offsets."""
    await broker.answers()
    name, size, count = await topic(broker.bootstrap, "killed", 2), 1000, 0
    restarting: list[asyncio.Task[None]] = []

    async def restart() -> None:
        broker.kill()
        await asyncio.sleep(0.3)
        broker.start()

    async with producing(broker.bootstrap) as to, asyncio.timeout(180):
        for number in range(60):
            records: Sequence[Record] = [(b"k", b"%d" % (count + i), []) for i in range(size)]
            if number in (20, 40):
                restarting.append(asyncio.create_task(restart()))
                await asyncio.sleep(0)
            offsets = await send_wave(to, {(name, 0): records, (name, 1): records})
            assert offsets == {(name, 0): (count, count + size - 1), (name, 1): (count, count + size - 1)}
            count += size
        await asyncio.gather(*restarting)
    found = await read(broker.bootstrap, name)
    for partition in (0, 1):
        assert [value for _, (_, value, _) in found[partition]] == [b"%d" % number for number in range(count)]


@pytest.mark.integration
@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_closing_does_not_wait_for_a_broker_that_is_away(broker: OwnBroker, how: str) -> None:
    """A producer with records unsent closes in its time; who waits for them is told, and no task is left behind."""
    await broker.answers()
    name = await topic(broker.bootstrap, f"away.{how}")
    to = producer(KafkaSettings(bootstrap_servers=broker.bootstrap))
    await to.start()
    await send_wave(to, {(name, 0): numbered(1)})
    if how == "stopped":
        freeze(broker.process.pid)
    else:
        broker.kill()
    try:
        async with asyncio.timeout(180):
            sending = asyncio.create_task(send_wave(to, {(name, 0): numbered(1)}))
            await asyncio.sleep(0.5)
            assert not sending.done()
            await close_producer(to, 0.5)
            with pytest.raises(KafkaUnavailable, match="closed before"):
                await sending
            with pytest.raises(KafkaUnavailable, match="closed before"):
                await send_wave(to, {(name, 0): numbered(1)})
            with pytest.raises(KafkaUnavailable, match="was not ready after 1 s"):
                await wait_for_kafka(KafkaSettings(bootstrap_servers=broker.bootstrap), 1.0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while asyncio.all_tasks() != {asyncio.current_task()}:
                await asyncio.sleep(0.05)
    finally:
        if how == "stopped":
            broker.process.send_signal(signal.SIGCONT)
        else:
            broker.start()


@pytest.mark.integration
async def test_a_broker_that_is_away_is_not_asked_without_a_pause(broker: OwnBroker) -> None:
    """One that stops in good order tells that partitions have no leader: a producer with records tries ten times a second from then on."""
    await broker.answers()
    name, sent = await topic(broker.bootstrap, "pace", 4), 0

    async def send_on() -> None:
        nonlocal sent
        while True:
            await send_wave(to, {(name, partition): numbered(1) for partition in range(4)})
            sent += 1

    async with producing(broker.bootstrap) as to, asyncio.timeout(180):
        sending = asyncio.create_task(send_on())
        while not sent:
            await asyncio.sleep(0.1)
        client, tries = to.client, list[object]()
        failed = client.cluster.failed_update
        client.cluster.failed_update = lambda error: tries.append(error) or failed(error)  # type: ignore[func-returns-value]
        await asyncio.to_thread(broker.stop)
        try:
            before, sent_before = len(tries), sent
            await asyncio.sleep(2)
            assert 2 <= len(tries) - before <= 30
        finally:
            broker.start()
        while sent == sent_before:
            await asyncio.sleep(0.1)
        sending.cancel()
        await asyncio.wait({sending})


@pytest.mark.integration
async def test_a_cancelled_wave_leaves_nothing_running(broker: OwnBroker) -> None:
    """Cancelling ends every partition's sending."""
    await broker.answers()
    name = await topic(broker.bootstrap, "cancelled", 4)
    to = producer(KafkaSettings(bootstrap_servers=broker.bootstrap))
    await to.start()
    freeze(broker.process.pid)
    try:
        sending = asyncio.create_task(send_wave(to, {(name, partition): numbered(10) for partition in range(4)}))
        await asyncio.sleep(0.3)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert sending.cancelled()
        assert not [task for task in asyncio.all_tasks() if "send_in_order" in repr(task)]
    finally:
        broker.process.send_signal(signal.SIGCONT)
    await close_producer(to)
