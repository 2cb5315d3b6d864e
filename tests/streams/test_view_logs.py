"""Which log a view lives in: by what its topics hold and by what repartition told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.operations.repartition.test_old_log import PAID, VIEW

from tidemill.declarations.project import Project
from tidemill.errors import KafkaUnavailable, TopicMismatch, UnfilledLog
from tidemill.kafka.client import close_producer, producer
from tidemill.kafka.topics import offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.names import LogName, log_name
from tidemill.records import LogRecord, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.runtime.watchdog import Pulse
from tidemill.streams.marks import append_mark, read_marks
from tidemill.streams.topics import logs_topic, view_topic
from tidemill.streams.view_logs import _existing, check_logs, ensure_logs, log_in_use, need_topics

P4, P8, P16 = log_name("cards", 4), log_name("cards", 8), log_name("cards", 16)


def mark(log: LogName, *, filled: bool, source: LogName = P4) -> LogRecord:
    """What repartition tells."""
    return LogRecord("cards", log, source, filled, 0)


@pytest.mark.parametrize(
    ("holding", "marks", "used"),
    [
        (set(), [], None),
        ({P4}, [], P4),
        ({P4, P8}, [mark(P8, filled=False)], P4),
        ({P8}, [mark(P8, filled=False)], None),
        ({P4, P8}, [mark(P8, filled=False), mark(P8, filled=True)], P8),
        (set(), [mark(P8, filled=True)], P8),
        ({P4, P8, P16}, [mark(P8, filled=False), mark(P16, filled=False)], P4),
        ({P4, P8, P16}, [mark(P8, filled=True), mark(P16, filled=False, source=P8)], P8),
        ({P4, P8, P16}, [mark(P8, filled=True), mark(P16, filled=True, source=P8)], P16),
    ],
)
def test_the_log_in_use(holding: set[LogName], marks: list[LogRecord], used: LogName | None) -> None:
    """The last one that was filled; before there was any, the one that holds records and was not about to be filled."""
    assert log_in_use("cards", holding, marks) == used


def test_two_logs_that_nobody_filled() -> None:
    """Topics made by hand are not guessed about: both are named."""
    with pytest.raises(TopicMismatch, match=r"'cards' has records in cards\.p4 and in cards\.p8.*delete"):
        log_in_use("cards", {P8, P4}, [])


def test_logs_are_told_by_the_names_of_topics() -> None:
    """Only this project's topics of views that it declares are logs of a view, under whatever partition count."""
    others = ["p.view.cards", "p.view.cards.p0", "p.view.other.p4", "q.view.cards.p16", "cards.p16", "p.requests", "paid", ""]
    found = _existing(declared("p", 4), [view_topic("p", P8), *others, view_topic("p", P4)])
    assert found == {"cards": {P4, P8}}
    assert _existing(declared("p", 4), others) == {}


def declared(name: str, partitions: int) -> Project:
    """A project with one view."""
    return Project(name, {"paid": PAID}, {"cards": replace(VIEW, partitions=partitions)})


async def write(settings: KafkaSettings, topic: str, value: bytes) -> None:
    """One record."""
    made = producer(settings)
    await made.start()
    await send_wave(made, {(topic, 0): [(b"card-1", value, [])]})
    await close_producer(made)


@pytest.mark.integration
async def test_a_changed_count_is_refused_until_the_log_is_filled(kafka: str, topic_prefix: str) -> None:
    """Nothing to refuse while there are no records; then another count is refused and creates nothing; the old count is not; nor the new one, once filled."""
    settings, old, new = KafkaSettings(bootstrap_servers=kafka), declared(topic_prefix, 4), declared(topic_prefix, 8)
    await ensure_logs(settings, old)
    await ensure_logs(settings, declared(topic_prefix, 2))
    await write(settings, view_topic(topic_prefix, P4), b"anything")
    with pytest.raises(
        UnfilledLog, match=r"'cards' is declared as cards\.p8, but its records are in cards\.p4; run: tidemill repartition cards"
    ):
        await ensure_logs(settings, new)
    assert not await offset_ranges(settings, view_topic(topic_prefix, P8))
    await ensure_logs(settings, new, [logs_topic(topic_prefix)])
    await ensure_logs(settings, old)
    marks = [mark(P8, filled=False), mark(P8, filled=True)]
    for told in marks:
        await write(settings, logs_topic(topic_prefix), encode(told))
    assert await read_marks(settings, new.name) == marks
    await ensure_logs(settings, new)
    with pytest.raises(UnfilledLog) as refused:
        await check_logs(settings, old, old.views.values())
    assert refused.value.views == {"cards": (P8, P4)}


@pytest.mark.integration
async def test_a_mark_that_cannot_be_read(kafka: str, topic_prefix: str) -> None:
    """A foreign record in the topic of logs is named, and nothing is guessed."""
    settings, project = KafkaSettings(bootstrap_servers=kafka), declared(topic_prefix, 4)
    await ensure_logs(settings, project)
    await write(settings, logs_topic(topic_prefix), b"{}")
    with pytest.raises(TopicMismatch, match="topic of logs cannot be read"):
        await read_marks(settings, project.name)


@pytest.mark.integration
async def test_needing_topics_waits_until_a_log_is_filled(kafka: str, topic_prefix: str) -> None:
    """It says what it waits for, beats meanwhile, and returns once the log is filled; what is not waited for is raised."""
    settings, old, new = KafkaSettings(bootstrap_servers=kafka), declared(topic_prefix, 4), declared(topic_prefix, 8)
    await ensure_logs(settings, old)
    await write(settings, view_topic(topic_prefix, P4), b"anything")
    pulse, told = Pulse(), list[Exception]()
    pulse.silent_seconds = 9
    with pytest.raises(UnfilledLog):
        await need_topics(settings, new, told.append, [pulse], waited_for=(KafkaUnavailable,))
    waiting = asyncio.create_task(need_topics(settings, new, told.append, [pulse]))
    async with asyncio.timeout(180):
        while not told:
            await asyncio.sleep(0.05)
    assert isinstance(told[0], UnfilledLog)
    for written in (mark(P8, filled=False), mark(P8, filled=True)):
        await append_mark(settings, topic_prefix, written)
    async with asyncio.timeout(180):
        await waiting
    pulse.tick()
    assert pulse.silent_seconds == 0
    assert await offset_ranges(settings, view_topic(topic_prefix, P8))


@pytest.mark.slow
async def test_needing_topics_waits_for_kafka() -> None:
    """Without Kafka it waits, and says so, until it is cancelled."""
    told = list[Exception]()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await need_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1"), declared("away", 1), told.append, [])
    assert told
    assert {type(error) for error in told} == {KafkaUnavailable}


def test_the_way_out_names_every_view() -> None:
    """One command for each."""
    error = UnfilledLog({"a": ("a.p1", "a.p2"), "b": ("b.p1", "b.p2")})
    assert "tidemill repartition a && tidemill repartition b" in error.mend
