"""Dead letters of feature computation on a real Kafka: one for every record refused, however often workers die."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest
from tests.features.rig import Rig

from tidemill.errors import KafkaUnavailable
from tidemill.kafka.topics import ensure_topics
from tidemill.kernel.fences import Fence
from tidemill.online.keys import fence_key
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.dead_letter_log import read_dead_letters
from tidemill.streams.dead_letters import dead_letter
from tidemill.streams.topics import dead_letters_topic, topic_specs
from tidemill_features.dead_letters import DeadLetterTopic

pytestmark = pytest.mark.integration


def refused(rig: Rig) -> Counter[tuple[str | None, str]]:
    """What the fences count as refused, by view and reason."""
    counts = Counter[tuple[str | None, str]]()
    for view in rig.project.views.values():
        for partition in range(view.partitions):
            stored = rig.store.get(fence_key(rig.name, view.log, partition))
            assert isinstance(stored, bytes)
            fence = Fence.decode(stored)
            counts += Counter({(view.name, "late"): fence.late, (view.name, "poison"): fence.poison})
    return counts


def test_every_refused_record_has_a_letter(rig: Rig) -> None:
    """Workers are killed while they fold and the store is emptied: each record the fences count as refused has exactly one letter."""
    rig.produce(8_000)
    for _ in range(3):
        worker = rig.worker()
        worker.wait_ready()
        rig.produce(3_000)
        worker.send(signal.SIGKILL)
        worker.wait_ended()
    rig.store.flushall()
    worker = rig.worker()
    rig.wait_folded()
    rig.check()
    letters = asyncio.run(read_dead_letters(rig.settings, rig.name))
    counted = refused(rig)
    assert Counter((letter.view, letter.reason) for letter in letters) == counted
    assert {reason for _, reason in counted} == {"late", "poison"}
    assert worker.metric("tidemill_features_lateness_seconds_count") >= counted["by_card", "late"]


def test_a_kafka_that_is_not_there(rig: Rig) -> None:
    """Without Kafka a letter is not kept, and that is said in seconds; with it, the same letters can be asked to be kept again and again."""
    letters = [dead_letter("poison", "why", ("t", 0, offset), 1, b"key", b"{", "view") for offset in range(3)]
    topic = dead_letters_topic(rig.name)

    async def send() -> int:
        async with DeadLetterTopic(KafkaSettings(bootstrap_servers="127.0.0.1:1"), topic) as away:
            with pytest.raises(KafkaUnavailable, match="3 dead letters cannot be written"):
                await away.send(letters)
        await ensure_topics(rig.settings, {topic: topic_specs(rig.project)[topic]})
        async with DeadLetterTopic(rig.settings, topic) as there:
            await there.send(letters)
            await there.send(letters)
        return len(await read_dead_letters(rig.settings, rig.name))

    assert asyncio.run(send()) == 3
