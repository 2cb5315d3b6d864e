"""Waiting for the offline writer: nothing that is computed from the archive may lack events only because they are not archived yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition

from tidemill.archive.columns import event_folder
from tidemill.clock import Deadline, now_ms
from tidemill.declarations import Event
from tidemill.errors import TidemillError
from tidemill.kafka.topics import offset_ranges
from tidemill.offline.store import OfflineStore, counter_name
from tidemill.runtime.settings import KafkaSettings

_RETRY_SECONDS = 0.2


async def wait_archived(events: Iterable[Event], store: OfflineStore, kafka: KafkaSettings, timeout_seconds: float = 60) -> int:
    """Waits until the archive has all that the topics of these events hold now, and returns that moment in epoch ms. Raises TidemillError when
    a table still lags after `timeout_seconds`, KafkaUnavailable."""
    needed, now = {event.topic: event for event in events}, now_ms()
    held = await offset_ranges(kafka, *needed)
    deadline = Deadline(timeout_seconds)
    for topic, event in needed.items():
        ends = {tp: found.end for tp, found in held.items() if tp.topic == topic and found.end}
        while lagging := _lagging(store, event, ends):
            if deadline.expired:
                target, position = lagging
                raise TidemillError(
                    f"the archive has {event.name} up to {position}, but {topic}[{target.partition}] goes up to {ends[target]}",
                    mend="see that the offline writer runs (tidemill status), then run the command again",
                )
            await asyncio.sleep(_RETRY_SECONDS)
    return now


def _lagging(store: OfflineStore, event: Event, ends: Mapping[TopicPartition, int]) -> tuple[TopicPartition, int] | None:
    """A partition whose events are not all archived, and the offset up to which they are; None when all are."""
    table = store.find(event_folder(event.name)) if ends else None
    positions = {target: 0 if table is None else table.counter(counter_name(*target)) for target in ends}
    return next(((target, position) for target, position in positions.items() if position < ends[target]), None)
