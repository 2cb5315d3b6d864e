"""The order of time between partitions: a backlog is routed so that no entity sees an event of hours ago after one of now."""

from __future__ import annotations

import asyncio
import json
from itertools import accumulate
from typing import NamedTuple, cast

import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.beside import beside

from tidemill import Event, FeatureView, count
from tidemill.declarations.project import Project
from tidemill.kafka.client import producer
from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topics import ensure_topics
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs, view_topic
from tidemill.timestamps import rfc3339
from tidemill_ingestion import time_order
from tidemill_ingestion.consumer import EventConsumer
from tidemill_ingestion.time_order import PATIENCE_SECONDS, SLACK_MS, TimeOrder, known_ms, slices

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class Told(NamedTuple):
    """A record of a partition."""

    timestamp: int
    offset: int
    headers: tuple[tuple[str, bytes], ...] = ()


def place(number: int) -> TopicPartition:
    """A partition."""
    return TopicPartition("t", number)


def drained(logs: dict[TopicPartition, list[Told]], sizes: list[int]) -> list[tuple[TopicPartition, Told]]:
    """A backlog in the order in which it is routed; Kafka's client gives some records of one of the partitions that are wanted at a time."""
    order, fetched_to, routed = TimeOrder(), dict.fromkeys(logs, 0), list[tuple[TopicPartition, Told]]()
    for turn in range(1_000):
        fetched, wanted = {}, order.wanted(logs)
        for found in wanted[turn % max(len(wanted), 1) :][:1]:
            if part := logs[found][fetched_to[found] :][: sizes[turn % len(sizes)]]:
                fetched[found] = part
                fetched_to[found] += len(part)
        behind = [found for found, log in logs.items() if fetched_to[found] < len(log)]
        for found, records in slices(order.ready(fetched, behind, 0.0)):
            routed += [(found, cast(Told, record)) for record in records]
        if not behind and len(routed) == sum(map(len, logs.values())):
            return routed
    raise AssertionError(f"{len(routed)} records after 1,000 turns")


def logs_of(gaps: list[list[int]]) -> dict[TopicPartition, list[Told]]:
    """The logs of partitions, by the steps between their times."""
    return {place(number): [Told(NOW_MS + at, offset) for offset, at in enumerate(accumulate(steps))] for number, steps in enumerate(gaps)}


def recorded(log: list[Told]) -> list[Told]:
    """The same events, published at one moment and told with the times when they became known, in several spellings."""

    def spelled(at_ms: int, which: int) -> tuple[str, bytes]:
        return [
            ("ce_recordedtime", b"%d" % at_ms),
            ("Ce-RecordedTime", rfc3339(at_ms).encode()),
            ("ce_recordedtime", rfc3339(at_ms).encode()),
        ][which]

    return [Told(NOW_MS, record.offset, (("other", b"1"), spelled(record.timestamp, record.offset % 3))) for record in log]


STEPS = [0, 5, 1_000, 60_000, HOUR_MS]
SIZES = st.lists(st.integers(1, 7), min_size=1)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(gaps=st.lists(st.lists(st.sampled_from(STEPS), max_size=40), min_size=1, max_size=4), sizes=SIZES)
def test_a_backlog_is_in_the_order_of_time(gaps: list[list[int]], sizes: list[int]) -> None:
    """No record comes after one that is newer by more than the slack."""
    logs = logs_of(gaps)
    for found in (logs, {partition: recorded(log) for partition, log in logs.items()}):
        newest_ms = 0
        for partition, record in drained(found, sizes):
            at_ms = logs[partition][record.offset].timestamp
            assert at_ms >= newest_ms - SLACK_MS
            newest_ms = max(newest_ms, at_ms)


@pytest.mark.parametrize("told", [b"", b"soon", b"9" * 400, b"\xff", b"-1"])
def test_a_recorded_time_that_is_none_holds_nothing_up(told: bytes) -> None:
    """Such an event is refused when it is routed; until then it stands where it was published."""
    assert known_ms(Told(NOW_MS, 0, (("ce_recordedtime", told),))) == NOW_MS


@settings(max_examples=300, deadline=None)
@given(gaps=st.lists(st.lists(st.sampled_from([*STEPS, -2_000, -HOUR_MS]), max_size=40), min_size=1, max_size=4), sizes=SIZES)
def test_any_backlog_is_routed_once(gaps: list[list[int]], sizes: list[int]) -> None:
    """Whatever the times are, each record is routed once, in its partition's order."""
    logs = logs_of(gaps)
    routed = drained(logs, sizes)
    assert {found: [record for of, record in routed if of == found] for found in logs} == logs


def test_a_partition_that_gives_nothing_is_not_waited_for() -> None:
    """A partition without a leader holds up the others for some seconds once, until it gives something again."""
    order, first = TimeOrder(), [Told(NOW_MS, 0)]
    assert order.ready({place(0): first}, [place(1)], 0.0) == {}
    assert order.wanted([place(0), place(1)]) == [place(1)]
    assert order.ready({}, [place(1)], PATIENCE_SECONDS - 0.1) == {}
    assert order.ready({}, [place(1)], PATIENCE_SECONDS) == {place(0): first}
    later = [Told(NOW_MS + HOUR_MS, 1)]
    assert order.ready({place(0): later}, [place(1)], PATIENCE_SECONDS + 1) == {place(0): later}
    old = [Told(NOW_MS - HOUR_MS, 0)]
    assert order.ready({place(0): [Told(NOW_MS + 2 * HOUR_MS, 2)], place(1): old}, [place(1)], PATIENCE_SECONDS + 2) == {place(1): old}


def test_without_a_backlog_nothing_is_held() -> None:
    """Partitions that are read as events come are routed at once, also one that has been idle for long beside one that has more."""
    order = TimeOrder()
    assert order.ready({place(0): [Told(NOW_MS, 0)], place(1): [Told(NOW_MS - HOUR_MS, 0)]}, [], 0.0) != {}
    assert order.ready({place(0): [Told(NOW_MS + 900, 1)]}, [place(0)], 1.0) == {place(0): [Told(NOW_MS + 900, 1)]}
    assert order.ready({place(1): [Told(NOW_MS + 1_000, 1)]}, [place(0)], 2.0) == {place(1): [Told(NOW_MS + 1_000, 1)]}


def test_what_was_given_up_is_fetched_again() -> None:
    """After a rebalance nothing that was held comes out."""
    order = TimeOrder()
    assert order.ready({place(0): [Told(NOW_MS, 0)]}, [place(1)], 0.0) == {}
    order.forget()
    assert order.wanted([place(0)]) == [place(0)]
    assert order.ready({}, [], 0.0) == {}


@pytest.mark.integration
async def test_a_day_of_backlog_is_not_late(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a day's standstill an entity whose events lie in all partitions gets them in the order of time: none is an hour older than one before."""
    monkeypatch.setattr(time_order, "PATIENCE_SECONDS", 60.0)  # a partition that a busy machine is slow to fetch is not one without records
    event = Event("paid", {"at": int, "shop": str}, time="at", topic=f"{topic_prefix}.paid", partitions=4)
    view = FeatureView("shops", event, "shop", [count()], windows=["1h"], partitions=1)
    project, kafka_settings = Project(topic_prefix, {"paid": event}, {"shops": view}), KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(kafka_settings, topic_specs(project))
    made = producer(kafka_settings)
    await made.start()
    minutes = range(24 * 60)
    sends = []
    for minute in minutes:
        for number in range(12):
            at = NOW_MS + minute * 60_000 + number * 5_000
            value = json.dumps({"at": at, "shop": "north", "pad": "x" * 400}).encode()
            sends.append(await made.send(event.topic, value, partition=number % 4, timestamp_ms=at))
    await asyncio.gather(*sends)
    await made.stop()
    async with EventConsumer(kafka_settings, project) as routing, beside(routing.run()), asyncio.timeout(180):
        while sum(routing.positions.values()) < len(sends):
            await asyncio.sleep(0.05)
    times = []
    async with Reader(kafka_settings, {TopicPartition(view_topic(project.name, view.log), 0): 0}) as reader:
        async for fetched in read_to_end(reader):
            times += [json.loads(record.value)["time"] for records in fetched.values() for record in records]
    newest, latest_ms = 0, 0
    for at in times:
        latest_ms, newest = max(latest_ms, newest - at), max(newest, at)
    assert len(times) == len(sends)
    assert latest_ms <= SLACK_MS
