"""Typed topics on a real broker: what is written is read, whoever else wrote there, and old records too."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.client import started_producer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.kafka.waves import send_wave
from tidemill.limits import KEY_BYTES
from tidemill.records import AlertRecord, DeploymentRecord, encode
from tidemill.retrainings import GateFinding, RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alerts import append_alert, read_alerts, with_source
from tidemill.streams.dead_letter_log import read_dead_letters
from tidemill.streams.dead_letters import dead_letter, letter_record
from tidemill.streams.deployments import Deployments, append_deployment
from tidemill.streams.retraining import append_retraining, read_retraining
from tidemill.streams.topics import alerts_topic, dead_letters_topic, deployments_topic, retraining_topic

DRIFT = AlertRecord("x", "m", "1", "performance", "auc", "opened", 0, 1, "z", 1.0, 1.0, 1.0, 1, "worse")
AUDIT = AlertRecord("y", "", "", "data_quality", "partition 12", "opened", 0, 1, "audit", 1.0, 0.0, 1.0, 9, "differs", view="zones")
NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1")


def version(model: str, name: str) -> DeploymentRecord:
    """A deployment."""
    return DeploymentRecord(model, name, f"models/{model}/{name}", "0" * 64, 1)


def test_old_alerts_are_told_apart_as_they_were() -> None:
    """Without a source it is the audit's if its test is, with the partition that its subject names; a source that is there is believed."""
    assert (with_source(DRIFT).source, with_source(DRIFT).partition) == ("drift", None)
    assert (with_source(AUDIT).source, with_source(AUDIT).partition) == ("audit", 12)
    strange = msgspec.structs.replace(AUDIT, subject="all of it")
    assert (with_source(strange).source, with_source(strange).partition) == ("audit", None)
    named = msgspec.structs.replace(AUDIT, source="drift", partition=4)
    assert with_source(named) == named


def test_a_letter_as_a_record() -> None:
    """The key is that of the message, cut to what a letter may hold; a message without a key has none."""
    letter = dead_letter("poison", "why", ("t", 0, 1), 5, b"k" * 2 * KEY_BYTES, b"value")
    key, value, headers = letter_record(letter, b"k" * 2 * KEY_BYTES)
    assert (key, value, headers) == (b"k" * KEY_BYTES, encode(letter), [])
    assert letter_record(letter, None)[0] is None


async def make(kafka: str, name: str) -> KafkaSettings:
    """A topic of one partition with a record that is nothing."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(settings, {name: TopicSpec(1, {}, ours=False)})
    async with started_producer(settings) as made:
        await send_wave(made, {(name, 0): [(None, b"junk", [])]})
    return settings


@pytest.mark.integration
async def test_alerts(kafka: str, topic_prefix: str) -> None:
    """Alerts with and without a source come back in order, each with one; a record that is no alert is passed over."""
    settings = await make(kafka, alerts_topic(topic_prefix))
    told = [DRIFT, AUDIT, msgspec.structs.replace(AUDIT, id="z", source="audit", partition=3)]
    async with started_producer(settings) as made:
        for alert in told:
            await append_alert(made, topic_prefix, alert)
    found = await read_alerts(settings, topic_prefix)
    assert [(alert.id, alert.source, alert.partition) for alert in found] == [("x", "drift", None), ("y", "audit", 12), ("z", "audit", 3)]


@pytest.mark.integration
async def test_dead_letters(kafka: str, topic_prefix: str) -> None:
    """Each letter once, however often it was written, and nothing of a record that is no letter."""
    settings = await make(kafka, topic := dead_letters_topic(topic_prefix))
    letters = [dead_letter("poison", "why", ("t", 0, offset), 5, b"k", b"{") for offset in range(3)]
    async with started_producer(settings) as made:
        await send_wave(made, {(topic, 0): [letter_record(letter, b"k") for letter in [*letters, *letters[1:]]]})
    assert await read_dead_letters(settings, topic_prefix) == letters


@pytest.mark.integration
async def test_deployments_are_followed(kafka: str, topic_prefix: str) -> None:
    """First those that are there, then those that come; what is no deployment is left out in both."""
    settings = await make(kafka, topic := deployments_topic(topic_prefix))
    first, second = version("a", "1"), version("a", "2")
    await append_deployment(settings, topic_prefix, first, 30)
    async with Deployments(settings, topic_prefix) as deployments:
        assert [record async for records in deployments.so_far() for record in records] == [first]
        assert await deployments.next() == []
        async with started_producer(settings) as made:
            await send_wave(made, {(topic, 0): [(None, b"{}", [])]})
        await append_deployment(settings, topic_prefix, second, 30)
        found: list[DeploymentRecord] = []
        async with asyncio.timeout(180):
            while not found:
                found = await deployments.next()
        assert found == [second]


@pytest.mark.integration
async def test_retrainings(kafka: str, topic_prefix: str) -> None:
    """Steps come back in order with their evidence; what is none is passed over, and without a topic there are none."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    assert await read_retraining(settings, topic_prefix) == []
    begun = RetrainingRecord("m", 5, "begun", 5, "asked for", "hand", ends={"results": [9]})
    shown = RetrainingRecord("m", 5, "shadow", 6, "rehearsed", version="2", evidence=[GateFinding("latency", "for", "2 ms", 1.0, 2.0)])
    await append_retraining(settings, topic_prefix, begun)
    await make(kafka, retraining_topic(topic_prefix))
    await append_retraining(settings, topic_prefix, shown)
    assert await read_retraining(settings, topic_prefix) == [begun, shown]


async def test_without_kafka() -> None:
    """Every reader and writer raises KafkaUnavailable, as it says."""
    for attempt in (
        read_alerts(NOWHERE, "p"),
        read_dead_letters(NOWHERE, "p"),
        read_retraining(NOWHERE, "p"),
        append_deployment(NOWHERE, "p", version("a", "1"), 5),
    ):
        with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1"):
            await attempt
