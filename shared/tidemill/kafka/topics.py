"""The topics of a cluster: creating and checking them, offsets, consumer groups. Every call opens and closes its own connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    InvalidReplicationFactorError,
    NotCoordinatorForGroupError,
    TopicAlreadyExistsError,
    for_code,
)

from tidemill.clock import Deadline
from tidemill.errors import KafkaUnavailable, TopicMismatch
from tidemill.kafka.admin import admin
from tidemill.kafka.client import close_consumer, consumer, started_consumer
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.runtime.logs import get_logger
from tidemill.runtime.settings import KafkaSettings

log = get_logger(__name__)
T = TypeVar("T")


class OffsetRange(NamedTuple):
    """The offsets that a partition holds: from `begin` to `end`, `end` not included."""

    begin: int
    end: int


async def ensure_topics(settings: KafkaSettings, specs: Mapping[str, TopicSpec], deadline_seconds: float = 30.0) -> None:
    """Create the missing topics and return once all have leaders. Safe to call again, and from several processes at once.

    A topic of ours that exists must have the partition count and `cleanup.policy` of its spec, and at least its `max.message.bytes`; the
    operator of the cluster may change other settings. That of an application may look as it likes. Raises TopicMismatch with all topics that do not fit (after creating the missing), KafkaUnavailable.
    """
    deadline = Deadline(deadline_seconds)
    async with admin(settings) as client:
        found = await _partition_counts(client)
        await _create(client, {name: spec for name, spec in specs.items() if name not in found})
        while missing := [name for name in specs if found.get(name) is None]:
            if deadline.expired:
                raise _leaderless(missing)
            await asyncio.sleep(0.05)
            found = await _partition_counts(client)
        existing = {name: count for name, count in found.items() if count is not None}
        ours = {name: spec for name, spec in specs.items() if spec.ours}
        wrong = [*_wrong_counts(ours, existing), *_wrong_configs(ours, await _configs(client, list(ours)))]
    if wrong:
        raise TopicMismatch("; ".join(text for text, _ in wrong), mend="; ".join(dict.fromkeys(mend for _, mend in wrong)))


async def _partition_counts(client: AIOKafkaAdminClient) -> dict[str, int | None]:
    """Topic -> partitions; None when one of them has no leader now. It asks for all topics: asking for one by name may create it."""
    return {
        topic["topic"]: None if topic["error_code"] or any(part["leader"] < 0 for part in topic["partitions"]) else len(topic["partitions"])
        for topic in await client.describe_topics()
    }


def _leaderless(topics: Iterable[str]) -> KafkaUnavailable:
    return KafkaUnavailable(f"topics without a leader: {', '.join(sorted(topics))}", mend="look at the brokers' logs")


async def _create(client: AIOKafkaAdminClient, specs: Mapping[str, TopicSpec]) -> None:
    if not specs:
        return
    new = [NewTopic(name, spec.partitions, -1, replica_assignments={}, topic_configs=spec.config) for name, spec in specs.items()]
    for name, code, *text in (await client.create_topics(new)).topic_errors:
        error = for_code(code)
        if error is InvalidReplicationFactorError:  # brokers that are starting or away do not count
            raise KafkaUnavailable(f"topic {name} cannot be created: too few brokers", mend="start them, or look at their logs")
        if code and error is not TopicAlreadyExistsError:
            raise TopicMismatch(
                f"topic {name} cannot be created: {error.__name__} {text[0] if text and text[0] else ''}".rstrip(),
                mend="correct its partitions or configuration, or create it by hand",
            )
        log.info("topic created" if not code else "topic exists", topic=name, partitions=specs[name].partitions)


def _wrong_counts(specs: Mapping[str, TopicSpec], existing: Mapping[str, int]) -> list[tuple[str, str]]:
    mend = "declare the partition count of the topic, or use another name: an entity's partition depends on the count"
    return [
        (f"topic {name} has {existing[name]} partitions, {spec.partitions} are declared", mend)
        for name, spec in specs.items()
        if existing[name] != spec.partitions
    ]


def _wrong_configs(specs: Mapping[str, TopicSpec], configs: Mapping[str, Mapping[str, str]]) -> list[tuple[str, str]]:
    wrong = []
    for name, spec in specs.items():
        for setting in ("cleanup.policy", "max.message.bytes"):
            wanted, found = spec.config.get(setting), configs[name].get(setting)
            if wanted is None or found is None or found == wanted:
                continue
            if setting == "cleanup.policy" or int(found) < int(wanted):
                wrong.append((f"topic {name} has {setting}={found}, {wanted} is needed", f"set {setting} with kafka-configs"))
    return wrong


async def _configs(client: AIOKafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics])
    return {name: {entry[0]: entry[1] for entry in entries} for answer in answers for _, _, _, name, entries in answer.resources}


async def is_compacted(settings: KafkaSettings, topic: str) -> bool:
    """Whether Kafka deletes records of a topic that newer ones with their key replace. Raises KafkaUnavailable."""
    async with admin(settings) as client:
        return "compact" in (await _configs(client, [topic])).get(topic, {}).get("cleanup.policy", "")


async def offset_ranges(settings: KafkaSettings, *topics: str) -> dict[TopicPartition, OffsetRange]:
    """The offsets that each partition of the topics holds now. A topic that does not exist is left out. Raises KafkaUnavailable.

    It raises KafkaUnavailable too when a topic exists without a leader, as for a moment after its broker was away: such a topic is not
    empty.
    """
    async with admin(settings) as client:
        found = await _partition_counts(client)
        counts = {topic: found[topic] for topic in topics if topic in found}
        if missing := [topic for topic, count in counts.items() if count is None]:
            raise _leaderless(missing)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count or 0)]
        if not partitions:
            return {}
        reader = consumer(settings)
        try:
            await reader.start()
            begins, ends = await reader.beginning_offsets(partitions), await reader.end_offsets(partitions)
        finally:
            await close_consumer(reader)
    return {partition: OffsetRange(begins[partition], ends[partition]) for partition in partitions}


async def offsets_at(settings: KafkaSettings, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """For each partition the offset of its first record that was written at or after a time; a partition without one is left out.

    Raises KafkaUnavailable.
    """
    if not times_ms:
        return {}
    async with started_consumer(settings) as reader:
        found = await reader.offsets_for_times(dict(times_ms))
    return {target: at.offset for target, at in found.items() if at is not None}


async def group_members(settings: KafkaSettings, group: str, deadline_seconds: float = 10.0) -> int:
    """How many members a consumer group has now; 0 when there is no group of that name. Raises KafkaUnavailable."""
    return len(await _members(settings, group, deadline_seconds))


async def assigned_to_group(settings: KafkaSettings, group: str, deadline_seconds: float = 10.0) -> set[TopicPartition]:
    """The partitions assigned to all members of a consumer group; none during a rebalance. Raises KafkaUnavailable."""
    found = set[TopicPartition]()
    for *_, assignment in await _members(settings, group, deadline_seconds):
        if assignment:
            found.update(ConsumerProtocolMemberAssignment.decode(assignment).partitions())
    return found


async def _members(settings: KafkaSettings, group: str, deadline_seconds: float) -> list[tuple[Any, ...]]:
    async def ask(client: AIOKafkaAdminClient) -> list[tuple[Any, ...]]:
        (answer,) = await client.describe_consumer_groups([group])
        ((code, _, _, _, _, members, *_),) = answer.groups
        if code:
            raise for_code(code)
        return list(members)

    return await _of_coordinator(settings, ask, deadline_seconds)


class Committed(NamedTuple):
    """What a consumer group has committed for a partition: the next offset, and the text beside it."""

    offset: int
    metadata: str


async def committed(settings: KafkaSettings, group: str, deadline_seconds: float = 10.0) -> dict[TopicPartition, int]:
    """The next offset that a consumer group has committed for each partition; empty without commits. Raises KafkaUnavailable."""
    return {partition: commit.offset for partition, commit in (await commits(settings, group, deadline_seconds)).items()}


async def commits(settings: KafkaSettings, group: str, deadline_seconds: float = 10.0) -> dict[TopicPartition, Committed]:
    """What a consumer group has committed for each partition; one without a commit is left out. Raises KafkaUnavailable."""

    async def ask(client: AIOKafkaAdminClient) -> dict[TopicPartition, Any]:
        offsets: dict[TopicPartition, Any] = await client.list_consumer_group_offsets(group)
        return offsets

    found = await _of_coordinator(settings, ask, deadline_seconds)
    return {partition: Committed(int(at.offset), at.metadata) for partition, at in found.items() if at.offset >= 0}


async def _of_coordinator(settings: KafkaSettings, ask: Callable[[AIOKafkaAdminClient], Awaitable[T]], deadline_seconds: float) -> T:
    """The answer of a group's coordinator. One that starts, or that is no more, is asked again: a new cluster creates its offsets topic at the first request."""
    deadline = Deadline(deadline_seconds)
    async with admin(settings) as client:
        while True:
            try:
                return await ask(client)
            except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
                if deadline.expired:
                    raise
                await asyncio.sleep(0.1)
