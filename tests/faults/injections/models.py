"""Faults of inference: damaged models, answers that come too late to be believed."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import msgspec
from aiokafka import TopicPartition
from tests.faults.injections.injection import Injection, Missed, Rig
from tests.faults.injections.orders import Order
from tests.faults.injections.workers import obeyed
from tests.patience import PATIENCE_SECONDS

from tidemill.declarations.project import load_project
from tidemill.kafka.client import close_producer, consumer, producer
from tidemill.kafka.topics import offset_ranges
from tidemill.models.artifact import load_artifact, save_artifact
from tidemill.records import DeploymentRecord, decoder, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import deployments_topic

NAME = "inference"
_DAMAGES = ("cut short", "garbage", "another model's", "missing")


async def newest_deployment(kafka: KafkaSettings, topic: str) -> DeploymentRecord:
    """The last record of the deployments. Raises Missed when there is none."""
    place = TopicPartition(topic, 0)
    held = (await offset_ranges(kafka, topic)).get(place)
    if held is None or held.end == held.begin:
        raise Missed("no model is deployed")
    reader = consumer(kafka)
    await reader.start()
    try:
        reader.assign([place])
        reader.seek(place, held.end - 1)
        record = await asyncio.wait_for(reader.getone(), PATIENCE_SECONDS)
    finally:
        await reader.stop()
    return decoder(DeploymentRecord).decode(record.value)


async def deploy(kafka: KafkaSettings, topic: str, record: DeploymentRecord) -> None:
    """Announce a version, as training does."""
    writer = producer(kafka)
    await writer.start()
    await writer.send_and_wait(topic, encode(record), key=record.model.encode(), partition=0)
    await close_producer(writer)


def damage(file: Path, how: str, rng: random.Random) -> None:
    """Spoil an ONNX file."""
    whole = file.read_bytes()
    match how:
        case "cut short":
            file.write_bytes(whole[: rng.randrange(len(whole))])
        case "garbage":
            file.write_bytes(rng.randbytes(len(whole)))
        case "another model's":
            place = rng.randrange(len(whole))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        case "missing":
            file.unlink()


def _damaged(rig: Rig, rng: random.Random) -> str:
    """A copy of the model is deployed as a new version whose file is damaged; a second later it is whole, and deployed again."""
    kafka, root = KafkaSettings(bootstrap_servers=rig.stack.kafka), rig.stack.offline
    topic = deployments_topic(load_project(rig.stack.project or "").name)
    record = asyncio.run(newest_deployment(kafka, topic))
    artifact = load_artifact(root, record.artifact, record.sha256)
    version = f"{record.version.partition('.copy')[0]}.copy{rng.randrange(10**6)}"
    folder, digest = save_artifact(root, msgspec.structs.replace(artifact.manifest, version=version), artifact.onnx)
    file, how = Path(root) / folder / "model.onnx", rng.choice(_DAMAGES)
    new = msgspec.structs.replace(record, version=version, artifact=folder, sha256=digest)
    damage(file, how, rng)
    try:
        asyncio.run(deploy(kafka, topic, new))
        time.sleep(rng.uniform(0.5, 1.5))
    finally:
        file.write_bytes(artifact.onnx)
    asyncio.run(deploy(kafka, topic, new))
    return f"the model's file was {how} when version {version} was deployed"


def _late(rig: Rig, rng: random.Random) -> str:
    """It stands still when a prediction is in the log, and its client, who waits for the answer, may ask again with the same id."""
    seconds = rng.uniform(1, 4)
    obeyed(rig, NAME, Order("after_log", "sleep", seconds=seconds, count=rng.randint(1, 3)))
    time.sleep(seconds)
    return f"answers came {seconds:.1f} s late"


DAMAGED = Injection("inference: damaged model deployed", _damaged, (NAME, "kafka"), ("38",), ("I5",), frozenset({"model"}), seconds=2)
LATE = Injection("inference: answers late", _late, (NAME,), ("37",), ("I5",), frozenset({"hooks", "model"}), seconds=3)
