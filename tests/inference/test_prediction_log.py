"""The log of predictions: all that was acknowledged is there, once, in its partition, and limits hold."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiokafka import TopicPartition
from tests.demo_state import NOW_MS
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import KafkaRefused, KafkaUnavailable, RecordTooLarge
from tidemill.kafka.client import consumer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.waves import send_wave
from tidemill.kernel.keys import partition_of
from tidemill.records import PredictionRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill_inference import prediction_log
from tidemill_inference.prediction_log import Entry, PredictionLog

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("patient")]
SPEC = TopicSpec(4, {})


def record(name: str, text: str = "") -> Entry:
    """A prediction."""
    return name.encode(), encode(PredictionRecord(name, "m", "v1", NOW_MS, NOW_MS, [1.5], 0.25, None, {"text": text}))


@asynccontextmanager
async def running(kafka: str, topic: str, told: Callable[[str | None], None] = lambda _reason: None) -> AsyncIterator[PredictionLog]:
    """Run a log that is connected."""
    up = asyncio.Event()

    def on_change(reason: str | None) -> None:
        told(reason)
        if reason is None:
            up.set()

    log = PredictionLog(KafkaSettings(bootstrap_servers=kafka), topic, SPEC, on_change)
    task = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(180):
            await up.wait()
        yield log
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def read(kafka: str, topic: str) -> list[tuple[int, str]]:
    """(partition, id) of every record, in order within each partition."""
    reader = consumer(KafkaSettings(bootstrap_servers=kafka))
    await reader.start()
    partitions = [TopicPartition(topic, number) for number in range(4)]
    reader.assign(partitions)
    await reader.seek_to_beginning(*partitions)
    found = []
    try:
        for partition, end in (await reader.end_offsets(partitions)).items():
            while await reader.position(partition) < end:
                for messages in (await reader.getmany(timeout_ms=500)).values():
                    found += [(message.partition, decoder(PredictionRecord).decode(message.value).id) for message in messages]
    finally:
        await reader.stop()
    return found


async def test_concurrent_callers_share_waves_and_nothing_is_lost(kafka: str, topic_prefix: str) -> None:
    """Hundreds of callers at once, some with several records: each record is there once, where its id says."""
    async with running(kafka, topic_prefix) as log:
        sizes = [1 + i % 3 for i in range(300)]
        await asyncio.gather(*(log.append([record(f"{i}-{j}") for j in range(size)]) for i, size in enumerate(sizes)))
        found = await read(kafka, topic_prefix)
    assert sorted(name for _, name in found) == sorted(f"{i}-{j}" for i, size in enumerate(sizes) for j in range(size))
    assert all(partition == partition_of(name.encode(), 4) for partition, name in found)


async def test_a_repeated_id_meets_its_first_record(kafka: str, topic_prefix: str) -> None:
    """Records of one id share a partition, in the order of the requests, so that a reader can take the first."""
    async with running(kafka, topic_prefix) as log:
        for text in ("first", "second"):
            await log.append([record("same", text)])
        assert len(set(await read(kafka, topic_prefix))) == 1


async def test_a_caller_that_leaves_disturbs_no_other(kafka: str, topic_prefix: str) -> None:
    """Cancelled requests leave the others of their wave as they were."""
    async with running(kafka, topic_prefix) as log:
        tasks = [asyncio.create_task(log.append([record(str(i))])) for i in range(40)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[1::2] == [None] * 20
        assert {name for _, name in await read(kafka, topic_prefix)} >= {str(i) for i in range(1, 40, 2)}


async def test_limits(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record too large is refused before anything is sent, and so is more than may wait; both harm nobody else."""
    async with running(kafka, topic_prefix) as log:
        with pytest.raises(RecordTooLarge, match="1048588"):
            await log.append([record("small"), record("large", "x" * 1_048_500)])
        monkeypatch.setattr(prediction_log, "MAX_QUEUED_BYTES", 1_000)
        results = await asyncio.gather(*(log.append([record(str(i), "x" * 300)]) for i in range(5)), return_exceptions=True)
        assert any(isinstance(result, KafkaUnavailable) for result in results)
        await log.append([record("after")])
        names = {name for _, name in await read(kafka, topic_prefix)}
    assert names == {str(i) for i, result in enumerate(results) if result is None} | {"after"}


async def test_a_producer_that_kafka_refuses_is_replaced(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callers of the refused wave are told at once; later ones are served by a new producer."""
    told: list[str | None] = []
    calls = 0

    async def refuse_once(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KafkaRefused("a hole in the sequence")
        return await send_wave(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(prediction_log, "send_wave", refuse_once)
    async with running(kafka, topic_prefix, told.append) as log:
        with pytest.raises(KafkaUnavailable, match="a hole in the sequence; repeat the request with the same id"):
            await log.append([record("one")])
        async with asyncio.timeout(180):
            while told[-1] is not None:
                await asyncio.sleep(0.02)
        await log.append([record("two")])
        assert [name for _, name in await read(kafka, topic_prefix)] == ["two"]
    assert told[0] is None
    assert "a hole in the sequence" in told


async def test_a_wave_that_is_stuck_is_no_sign_of_life(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kafka answers others but not us, the reason is told and the pulse stays away, so that the watchdog can end the process."""
    monkeypatch.setattr(prediction_log, "TIMEOUT_SECONDS", 2.0)
    told: list[str | None] = []
    release = asyncio.Event()

    async def hang(*_: object) -> None:
        await release.wait()

    async with running(kafka, topic_prefix, told.append) as log:
        monkeypatch.setattr(prediction_log, "send_wave", hang)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while log.pulse.silent_seconds:
                await asyncio.sleep(0.1)
                log.pulse.tick()
        with pytest.raises(KafkaUnavailable, match="no acknowledgement within 2 s"):
            await log.append([record("held")])
        log.pulse.tick()
        async with asyncio.timeout(180):
            while "Kafka answers, but not this client" not in told:
                await asyncio.sleep(0.05)
        log.pulse.tick()
        log.pulse.tick()
        assert log.pulse.silent_seconds >= 2
        release.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while told[-1] is not None or log.pulse.silent_seconds:
                await asyncio.sleep(0.1)
                log.pulse.tick()


async def test_before_there_is_a_connection_and_after_the_end(topic_prefix: str) -> None:
    """Without Kafka a prediction is refused at once, not waited for."""
    log = PredictionLog(KafkaSettings(bootstrap_servers="127.0.0.1:1"), topic_prefix, SPEC, lambda _reason: None)
    with pytest.raises(KafkaUnavailable, match="not connected yet"):
        await log.append([record("x")])
    task = asyncio.create_task(log.run())
    async with asyncio.timeout(180):
        while log._away == "not connected yet":
            await asyncio.sleep(0.01)
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
        await log.append([record("x")])
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    with pytest.raises(KafkaUnavailable, match="shutting down"):
        await log.append([record("x")])
