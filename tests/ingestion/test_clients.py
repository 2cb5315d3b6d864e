"""Events that other Kafka clients publish are read: librdkafka's and kafka-python, with keys and headers as they send them, compressed and in
transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from aiokafka import TopicPartition
from confluent_kafka import Producer
from kafka import KafkaProducer
from tests.ingestion.samples import departed, project
from tests.patience import PATIENCE_SECONDS

from tidemill.kafka.read_to_end import read_to_end
from tidemill.kafka.reader import Reader
from tidemill.kafka.topic_spec import TopicSpec
from tidemill.kafka.topics import ensure_topics
from tidemill.routing.router import Router
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration
EVENTS = 40
DEPARTED = project().events["departed"].topic
Publish = Callable[[str, str, Iterator[tuple[bytes, list[tuple[str, bytes]]]]], None]


def confluent(codec: str, *, transaction: bool = False) -> Publish:
    """librdkafka, as most languages use it."""

    def publish(servers: str, topic: str, events: Iterator[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
        own = {"transactional.id": f"{topic}.publisher"} if transaction else {}
        producer = Producer({"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 20, **own})
        if transaction:
            producer.init_transactions(PATIENCE_SECONDS)
            producer.begin_transaction()
        for number, (value, headers) in enumerate(events):
            producer.produce(topic, value, key=str(number), headers=[*headers])
        if transaction:
            producer.commit_transaction(PATIENCE_SECONDS)
        assert producer.flush(PATIENCE_SECONDS) == 0

    return publish


def kafka_python(codec: str | None) -> Publish:
    """The oldest client in Python."""

    def publish(servers: str, topic: str, events: Iterator[tuple[bytes, list[tuple[str, bytes]]]]) -> None:
        producer = KafkaProducer(bootstrap_servers=servers, compression_type=codec, linger_ms=20)
        for value, headers in events:
            producer.send(topic, value, headers=headers)
        producer.close(timeout=PATIENCE_SECONDS)

    return publish


def events() -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    """Bare JSON and CloudEvents in binary mode by turns."""
    for number in range(EVENTS):
        value = json.dumps(departed(), ensure_ascii=False).encode()
        headers = [("ce_specversion", b"1.0"), ("ce_type", b"departed"), ("ce_id", b"%d" % number), ("ce_source", b"/test")]
        yield value, headers if number % 2 else []


async def _read(settings: KafkaSettings, topic: str) -> list[str]:
    router, found = Router(project()), list[str]()
    async with Reader(settings, {TopicPartition(topic, p): 0 for p in range(2)}) as reader:
        async for fetched in read_to_end(reader):
            for target, records in fetched.items():
                for r in records:
                    routed = router.route(DEPARTED, target.partition, r.offset, r.timestamp, r.key, r.value, r.headers)
                    found += [name for name, *_ in routed]
    return found


@pytest.mark.parametrize(
    "publish",
    [
        *(confluent(codec) for codec in ("none", "gzip", "snappy", "lz4", "zstd")), confluent("lz4", transaction=True),
        kafka_python(None), kafka_python("gzip"),
    ],
    ids=["plain", "gzip", "snappy", "lz4", "zstd", "transaction", "kafka-python", "kafka-python gzip"],
)  # fmt: skip
def test_events_of_other_clients(kafka: str, topic_prefix: str, publish: Publish) -> None:
    """Each of them becomes the same records as an event of ours."""
    topic, settings = f"{topic_prefix}.departed", KafkaSettings(bootstrap_servers=kafka)
    asyncio.run(ensure_topics(settings, {topic: TopicSpec(2, {}, ours=False)}))
    publish(kafka, topic, events())
    found = asyncio.run(_read(settings, topic))
    one = [name for name, *_ in Router(project()).route(DEPARTED, 0, 0, 1_700_000_000_000, None, json.dumps(departed()).encode(), [])]
    assert sorted(found) == sorted(one * EVENTS)
