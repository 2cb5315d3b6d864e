"""Topics of a real broker: made, checked, looked at."""

import asyncio
import itertools
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, GroupLoadInProgressError, KafkaError, NotCoordinatorForGroupError
from aiokafka.protocol.commit import OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata
from tests.kafka.test_client import PLAIN, numbered, producing, topic

from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.kafka.client import consumer
from tidemill.kafka.patches import Admin
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import OffsetRange, committed, ensure_topics, is_compacted, offset_ranges
from tidemill.kafka.waves import send_wave
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration


async def test_topics_are_made_once(kafka: str, topic_prefix: str) -> None:
    """Asking again, and asking from several places at once, changes nothing; the configuration asked for is there."""
    settings = KafkaSettings(bootstrap_servers=kafka)
    specs = {f"{topic_prefix}.{name}": TopicSpec(partitions, PLAIN) for name, partitions in (("a", 1), ("b", 4))}
    await asyncio.gather(*(ensure_topics(settings, specs) for _ in range(4)))
    await ensure_topics(settings, specs)
    assert len(await offset_ranges(settings, *specs)) == 5


@pytest.mark.parametrize(
    ("spec", "message", "mend"),
    [
        (TopicSpec(3, {}), "has 2 partitions, 3 are declared", "depends on the count"),
        (TopicSpec(1, {}), "has 2 partitions, 1 are declared", "depends on the count"),
        (TopicSpec(2, {"cleanup.policy": "compact"}), "has cleanup.policy=delete, compact is needed", "kafka-configs"),
        (TopicSpec(2, {"max.message.bytes": "2000000"}), "has max.message.bytes=1048588, 2000000 is needed", "kafka-configs"),
    ],
)
async def test_a_topic_of_another_shape_is_refused(kafka: str, topic_prefix: str, spec: TopicSpec, message: str, mend: str) -> None:
    """The difference and the mend are told, and the topic is left as it is; the other topics are made all the same."""
    settings, name, other = KafkaSettings(bootstrap_servers=kafka), f"{topic_prefix}.two", f"{topic_prefix}.other"
    await ensure_topics(settings, {name: TopicSpec(2, PLAIN)})
    with pytest.raises(TopicMismatch, match=message) as caught:
        await ensure_topics(settings, {name: spec, other: TopicSpec(1, {})})
    assert mend in caught.value.mend
    await ensure_topics(settings, {name: TopicSpec(2, PLAIN), other: TopicSpec(1, {})})
    await ensure_topics(settings, {name: TopicSpec(2, {"max.message.bytes": "1000", "retention.ms": "1"})})


async def test_the_topic_of_an_application_may_look_as_it_likes(kafka: str, topic_prefix: str) -> None:
    """Its partitions, what is cleaned up there and how large its records may be are the choice of another team."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), f"{topic_prefix}.theirs"
    await ensure_topics(settings, {name: TopicSpec(3, {"cleanup.policy": "compact", "max.message.bytes": "1000"})})
    for partitions in (2, 3, 4):
        await ensure_topics(settings, {name: TopicSpec(partitions, PLAIN, ours=False)})
    assert len(await offset_ranges(settings, name)) == 3
    assert await is_compacted(settings, name)
    assert not await is_compacted(settings, f"{topic_prefix}.unknown")


async def test_a_topic_that_cannot_be_is_told(kafka: str, topic_prefix: str) -> None:
    """A refusal of the broker carries its reason."""
    with pytest.raises(TopicMismatch, match="cannot be created: InvalidConfig"):
        await ensure_topics(KafkaSettings(bootstrap_servers=kafka), {f"{topic_prefix}.bad": TopicSpec(1, {"cleanup.policy": "sometimes"})})


async def test_positions_are_read(kafka: str, topic_prefix: str) -> None:
    """What topics hold and what groups have committed; a topic or group nobody knows is empty."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, f"{topic_prefix}.positions", 2)
    async with producing(kafka) as to:
        await send_wave(to, {(name, 1): numbered(7)})
    one = TopicPartition(name, 1)
    assert await offset_ranges(settings, name, f"{topic_prefix}.unknown") == {
        TopicPartition(name, 0): OffsetRange(0, 0),
        one: OffsetRange(0, 7),
    }
    reader = consumer(settings, group=f"{topic_prefix}.group")
    await reader.start()
    reader.assign([one])
    await reader.commit({one: 5})
    await reader.stop()
    assert await committed(settings, f"{topic_prefix}.group") == {one: 5}
    assert await committed(settings, f"{topic_prefix}.nobody") == {}


async def test_a_topic_without_a_leader_is_not_an_empty_one(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka's answer, with the leader of one partition away: who asks is told so, and whoever needs the topic waits for its leader."""
    settings, name = KafkaSettings(bootstrap_servers=kafka), await topic(kafka, f"{topic_prefix}.leaderless", 2)
    describe, asked = AIOKafkaAdminClient.describe_topics, itertools.count()

    async def without_leader(client: AIOKafkaAdminClient) -> list[Any]:
        topics: list[Any] = await describe(client)
        if next(asked) < 3:
            for found in topics:
                if found["topic"] == name:
                    found["partitions"][1]["leader"] = -1
        return topics

    monkeypatch.setattr(AIOKafkaAdminClient, "describe_topics", without_leader)
    with pytest.raises(KafkaUnavailable, match=f"without a leader: {name}"):
        await offset_ranges(settings, name)
    await ensure_topics(settings, {name: TopicSpec(2, PLAIN)})
    assert next(asked) == 4
    assert len(await offset_ranges(settings, name)) == 2


@pytest.mark.parametrize(
    ("code", "error"), [(14, GroupLoadInProgressError), (16, NotCoordinatorForGroupError), (30, GroupAuthorizationFailedError)]
)
async def test_a_group_whose_coordinator_errs_has_not_committed_nothing(code: int, error: type[KafkaError]) -> None:
    """Kafka's answer is then an error of the whole group, without offsets: aiokafka takes it for a group that has committed nothing, and who goes on from there reads all again, or skips what waits."""
    client = Admin(bootstrap_servers="127.0.0.1:9")
    client._client = Answering(OffsetFetchResponse_v3(0, [], code))
    with pytest.raises(error, match="the offsets of group readers cannot be told"):
        await client.list_consumer_group_offsets("readers", 0)
    client._client = Answering(OffsetFetchResponse_v3(0, [("rides", [(0, 7, "", 0)])], 0))
    assert await client.list_consumer_group_offsets("readers", 0) == {TopicPartition("rides", 0): OffsetAndMetadata(7, "")}


async def test_a_coordinator_that_starts_is_asked_again(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers are awaited, up to the deadline."""
    settings, asked = KafkaSettings(bootstrap_servers=kafka), itertools.count()
    listed = Admin.list_consumer_group_offsets

    async def starting(client: Admin, group: str) -> Any:
        if next(asked) < 2:
            raise GroupLoadInProgressError
        return await listed(client, group)

    monkeypatch.setattr(Admin, "list_consumer_group_offsets", starting)
    assert await committed(settings, f"{topic_prefix}.nobody") == {}
    asked = itertools.count(-1_000_000)
    with pytest.raises(KafkaUnavailable, match="GroupLoadInProgress"):
        await committed(settings, f"{topic_prefix}.nobody", deadline_seconds=0.3)


class Answering:
    """The client inside an admin client, with one answer to everything."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def send(self, node: int, request: Any) -> Any:
        """What a broker answers."""
        return self._answer
