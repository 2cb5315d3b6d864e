"""Damage that no service may mend by itself: the log has lost what was applied, or somebody changed the stored state by hand.

Each of these ends in a refusal with its cause and its mend, or is found by the audit; none may pass in silence.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete
from aiokafka.errors import for_code
from redis import Redis
from tests.faults.injections.injection import Missed, Rig
from tests.faults.injections.valkey import client, rewrite_log

from tidemill.kafka.admin import admin
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics, offset_ranges
from tidemill.runtime.settings import KafkaSettings


def recreate_topic(kafka: KafkaSettings, topic: str, spec: TopicSpec) -> None:
    """Delete a topic and create it anew, empty. Row 21."""
    asyncio.run(_recreate(kafka, topic, spec))


async def _recreate(kafka: KafkaSettings, topic: str, spec: TopicSpec) -> None:
    async with admin(kafka) as client:
        _done((await client.delete_topics([topic])).topic_error_codes)
        while topic in await client.list_topics():
            await asyncio.sleep(0.05)
    await ensure_topics(kafka, {topic: spec})


def expire_records(kafka: KafkaSettings, topic: str, partition: int, before: int) -> None:
    """Let the log of a partition begin at `before`, as retention does. Row 22."""

    async def run() -> None:
        async with admin(kafka) as client:
            await client.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})
        while (await offset_ranges(kafka, topic))[TopicPartition(topic, partition)].begin < before:
            await asyncio.sleep(0.05)

    asyncio.run(run())


def raise_partitions(kafka: KafkaSettings, topic: str, count: int) -> None:
    """Give a topic more partitions, live: keys that come from now on lie elsewhere. Row 30."""

    async def run() -> None:
        async with admin(kafka) as client:
            _done([error[:2] for error in (await client.create_partitions({topic: NewPartitions(count)})).topic_errors])

    asyncio.run(run())


def lose_log_tail(rig: Rig, topic: str, partition: int, share: float) -> int:
    """Cut the end off a partition's newest segment, as a power cut does to a broker that does not sync. Returns the bytes. Row 21."""
    rig.stack.halt("kafka")
    try:
        folder = rig.home / "kafka" / "data" / f"{topic}-{partition}"
        segment = max(folder.glob("*.log"))
        size = segment.stat().st_size
        if not size:
            raise Missed(f"{segment.name} of {topic}-{partition} is empty")
        with segment.open("rb+") as file:
            file.truncate(size - max(1, int(size * share)))
        for index in (segment.with_suffix(".index"), segment.with_suffix(".timeindex"), *folder.glob("*.snapshot")):
            index.unlink(missing_ok=True)
        # A broker that ended in good order trusts its segments: this mark is what a power cut leaves out.
        (rig.home / "kafka" / "data" / ".kafka_cleanshutdown").unlink(missing_ok=True)
    finally:
        rig.stack.resume("kafka")
    return max(1, int(size * share))


def flip_bit(rig: Rig, rng: random.Random, key: bytes) -> None:
    """Turn over one bit near the beginning of a stored value in Valkey's append-only file, which has no checksum. Row 10.

    The file is written anew before, as plain commands, so that the value lies in it in one piece.
    """
    with client(rig) as store:
        value = store.get(key)
        assert isinstance(value, bytes)
        store.config_set("aof-use-rdb-preamble", "no")
        rewrite_log(store)
    rig.stack.halt("valkey")
    try:
        (path,) = (rig.home / "valkey" / "appendonlydir").glob("*.base.aof")
        content = path.read_bytes()
        place = content.index(value, content.index(key)) + rng.randrange(min(16, len(value)))
        with path.open("rb+") as file:
            file.seek(place)
            file.write(bytes([content[place] ^ 1 << rng.randrange(8)]))
    finally:
        rig.stack.resume("valkey")


def alter_entity(store: Redis, key: bytes, other: bytes) -> None:
    """Give an entity another one's value, which is sound in itself: only the history can tell. Row 12."""
    value = store.get(other)
    assert isinstance(value, bytes)
    store.set(key, value)


def lose_data_file(table: Path) -> Path:
    """Delete the newest data file of a table, under commits that are intact. Row 34."""
    files = sorted(table.glob("**/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    data = [path for path in files if "_delta_log" not in path.parts]
    if not data:
        raise Missed(f"{table.name} has no data yet")
    data[-1].unlink()
    return data[-1]


def _done(errors: list[tuple[str, int]]) -> None:
    for topic, code in errors:
        if code:
            raise for_code(code)(topic)
