"""The time by which runs begin and end: in a replay that of the requests, which stands still while nobody asks."""

from __future__ import annotations

import asyncio

import pytest
from tests.retraining.made import NOW_MS, answered, step

from tidemill.clock import now_ms
from tidemill.kafka.client import started_producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import Record, send_wave
from tidemill.records import encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import predictions_topic
from tidemill_retraining.clocks import MachineClock, RequestClock, clock_of
from tidemill_retraining.evidence import Evidence, Measuring
from tidemill_retraining.history import History

HOW = Measuring("probability", "brier")


def test_the_machine_says_the_time_unless_a_replay_is_declared() -> None:
    """Both are chosen by name; the machine's moments need no translation."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    machine, requests = clock_of("machine", settings, "p"), clock_of("requests", settings, "p")
    assert (type(machine), type(requests)) == (MachineClock, RequestClock)
    assert abs(machine.now_ms() - now_ms()) < 60_000
    assert machine.answers_since_ms(7) == 7
    assert requests.now_ms() == 0
    assert requests.answers_since_ms(7) >= NOW_MS


def test_a_moment_names_one_run() -> None:
    """Two runs that begin while time stands still have different names."""
    history = History.of([step("begun", 5, 5), step("failed", 5, 5), step("begun", 6, 6)])
    assert [history.free(now) for now in (4, 5, 6, 7)] == [4, 7, 7, 7]


@pytest.mark.parametrize(("grace_ms", "asked"), [(1_000, 2), (5_000, 1), (20_000, 0)])
def test_a_shadow_has_a_time_to_answer(grace_ms: int, asked: int) -> None:
    """Only requests that were answered longer ago than the grace are asked about."""
    evidence = Evidence("late", "v1", "v2", HOW, [], grace_ms)
    for name, served in (("a", 10_000), ("b", 13_000)):
        evidence.answer(answered(name, "v1", 0.5, served))
        evidence.answer(answered(name, "v2", 0.5, served))
    assert evidence.answered(16_000, 0) == (asked, asked)


@pytest.mark.integration
def test_the_time_is_that_of_the_newest_request(kafka: str, topic_prefix: str) -> None:
    """Whatever the order in which answers were written, also of a clock that begins later; it goes on when somebody asks."""
    settings, topic = KafkaSettings(bootstrap_servers=kafka), predictions_topic(topic_prefix)

    async def ask(*times: int) -> None:
        records: list[Record] = [(None, encode(answered(f"r{time}", "v1", 0.5, served=now_ms(), at=time)), []) for time in times]
        async with started_producer(settings) as made:
            await send_wave(made, {(topic, 0): records})

    async def story() -> list[int]:
        await ensure_topics(settings, {topic: TopicSpec(1, {})})
        seen = []
        async with clock_of("requests", settings, topic_prefix) as clock:
            await clock.catch_up()
            seen.append(clock.now_ms())
            await ask(100, 300, 200)
            await clock.catch_up()
            seen.append(clock.now_ms())
            await clock.catch_up()
            seen.append(clock.now_ms())
        await ask(400)
        async with clock_of("requests", settings, topic_prefix) as clock:
            await clock.catch_up()
            return [*seen, clock.now_ms()]

    assert asyncio.run(story()) == [0, 300, 300, 400]
