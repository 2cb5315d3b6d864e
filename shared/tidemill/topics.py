"""Names, partitions and settings of topics, Redis keys and tables: the only place where they are written."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import dataclass
from functools import cache

from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError
from tidemill.names import LogName
from tidemill.project import Project

MESSAGE_BYTES = 1_000_000
"""The largest value an event may have; a larger one is refused or becomes a dead letter."""


def partition_of(key: bytes, partitions: int) -> int:
    """Where a key lives: CRC-32 modulo the number of partitions."""
    return zlib.crc32(key) % partitions


def entity_key(value: object) -> bytes:
    """An entity's key: text as it is, whole numbers in decimal. Raises TypeError for anything else."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    raise TypeError(f"{value!r} is not an entity: give text or a whole number")


def view_topic(project: str, log: LogName) -> str:
    """Topic of a view's records."""
    return f"{project}.view.{log}"


def view_folder(log: LogName) -> str:
    """Name of the offline table that mirrors a view's topic."""
    return f"views/{log}"


def requests_topic(project: str) -> str:
    """Topic of announced subjects."""
    return f"{project}.requests"


def outcomes_topic(project: str) -> str:
    """Topic of outcomes."""
    return f"{project}.outcomes"


def predictions_topic(project: str) -> str:
    """Topic of predictions."""
    return f"{project}.predictions"


def results_topic(project: str) -> str:
    """Topic of predictions joined with outcomes; one partition, in order of `seq`."""
    return f"{project}.results"


def alerts_topic(project: str) -> str:
    """Topic of alerts."""
    return f"{project}.alerts"


def deployments_topic(project: str) -> str:
    """Topic of model deployments; one partition, kept for ever."""
    return f"{project}.deployments"


def logs_topic(project: str) -> str:
    """Topic of what repartition told: which log a view lives in; one partition, kept for ever."""
    return f"{project}.logs"


def dead_letters_topic(project: str) -> str:
    """Topic of events that were not used."""
    return f"{project}.dead-letters"


def ingestion_group(project: str) -> str:
    """Consumer group of ingestion: what it has committed is routed."""
    return f"{project}.ingestion"


@cache
def hash_tag(project: str, log: LogName, partition: int) -> bytes:
    """What all Redis keys of one partition of a log have in common, hence their cluster slot: ten bytes, since every entity repeats them."""
    digest = hashlib.blake2b(f"{project}.{log}:{partition}".encode(), digest_size=6).digest()
    return b"{%s}" % base64.urlsafe_b64encode(digest)


def fence_key(project: str, log: LogName, partition: int) -> bytes:
    """Redis key of a fence."""
    return b"fence" + hash_tag(project, log, partition)


def state_key(project: str, log: LogName, partition: int, entity: bytes) -> bytes:
    """Redis key of an entity's tiles."""
    return hash_tag(project, log, partition) + entity


@dataclass(frozen=True)
class TopicSpec:
    """How a topic is created."""

    partitions: int
    config: dict[str, str]


def topic_specs(project: Project) -> dict[str, TopicSpec]:
    """Every topic of a project. The log is the source of truth, so nothing of ours expires; events, which the log repeats, are kept for 7 days unless their topic says otherwise. Raises DeclarationError."""
    keep = {"cleanup.policy": "delete", "retention.ms": "-1", "max.message.bytes": "1048588"}
    specs = {view_topic(project.name, view.log): TopicSpec(view.partitions, keep) for view in project.views.values()}
    for name, partitions in (
        (requests_topic(project.name), 4), (outcomes_topic(project.name), 4), (predictions_topic(project.name), 4), (results_topic(project.name), 1),
        (alerts_topic(project.name), 1), (deployments_topic(project.name), 1), (logs_topic(project.name), 1), (dead_letters_topic(project.name), 1),
    ):  # fmt: skip
        specs[name] = TopicSpec(partitions, keep)
    for event in project.events.values():
        if event.topic in specs:
            raise DeclarationError(
                f"topic {event.topic!r} is one of the project's own", where=event.where, field="topic", mend="give the event another topic"
            )
        specs[event.topic] = TopicSpec(event.partitions, {**keep, "retention.ms": str(parse_ms("7d"))})
    return specs
