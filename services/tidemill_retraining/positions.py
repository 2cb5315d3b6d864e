"""Where topics end, and reading on from there: the answers and outcomes of a step, and how many outcomes there are since a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from aiokafka import TopicPartition

from tidemill.kafka.read_to_end import decoded_of, logged, read_to_end
from tidemill.kafka.reader import OccasionalReader
from tidemill.kafka.topics import offset_ranges
from tidemill.records import PredictionRecord, ResultRecord, decoder
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import predictions_topic, results_topic, shadows_topic

_TOPICS: Mapping[str, Callable[[str], str]] = {"predictions": predictions_topic, "shadows": shadows_topic, "results": results_topic}


async def ends_now(kafka: KafkaSettings, project: str) -> dict[str, list[int]]:
    """The next offset of each partition of the topics of predictions, shadows and results. Raises KafkaUnavailable."""
    found = {}
    for name, topic in _TOPICS.items():
        ranges = await offset_ranges(kafka, topic(project))
        found[name] = [ranges[place].end for place in sorted(ranges)]
    return found


class StepReading:
    """Answers and outcomes from given positions on. Use it in `async with`. Raises KafkaUnavailable, TopicRecreated."""

    def __init__(self, kafka: KafkaSettings, project: str, ends: Mapping[str, list[int]], names: tuple[str, ...] = tuple(_TOPICS)) -> None:
        places = {
            TopicPartition(_TOPICS[name](project), partition): offset
            for name in names
            for partition, offset in enumerate(ends.get(name, ()))
        }
        self._results = results_topic(project)
        self._reader = OccasionalReader(kafka, places)
        self._decoders: dict[bool, msgspec.json.Decoder[Any]] = {True: decoder(ResultRecord), False: decoder(PredictionRecord)}

    async def __aenter__(self) -> StepReading:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.stop()

    async def news(self) -> AsyncIterator[list[PredictionRecord | ResultRecord]]:
        """What came since the last call, in pieces. It ends where the topics ended when it began: of live traffic there is always more."""
        async for fetched in read_to_end(self._reader):
            found: list[PredictionRecord | ResultRecord] = []
            for place, records in fetched.items():
                found += decoded_of({place: records}, self._decoders[place.topic == self._results].decode, logged)
            yield found
