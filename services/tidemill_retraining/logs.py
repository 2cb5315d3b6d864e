"""The three topics that say how things stand with a model: retrainings, alerts and deployments, each followed whole."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiokafka import TopicPartition

from tidemill.kafka.client import KAFKA_SECONDS, kafka_errors
from tidemill.kafka.read_to_end import decoded_of, logged, read_to_end
from tidemill.kafka.reader import OccasionalReader
from tidemill.records import AlertRecord, DeploymentRecord, decoder
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.alert_board import standing
from tidemill.streams.alerts import with_source
from tidemill.streams.retraining import append_retraining
from tidemill.streams.topics import alerts_topic, deployments_topic, retraining_topic
from tidemill_retraining.history import History


class Logs:
    """What the topics say up to the last `catch_up`; of alerts those that stand, of retrainings those of one model. Use it in `async with`; both methods raise KafkaUnavailable, and TopicRecreated when a topic lost records that
    were read."""

    def __init__(self, kafka: KafkaSettings, project: str, model: str) -> None:
        self.history, self.alerts, self.deployments = History(), list[AlertRecord](), dict[str, DeploymentRecord]()
        self._kafka, self._project, self._model = kafka, project, model
        self._steps, self._alerts, self._deployments = (
            TopicPartition(topic(project), 0) for topic in (retraining_topic, alerts_topic, deployments_topic)
        )
        self._reader = OccasionalReader(kafka, dict.fromkeys((self._steps, self._alerts, self._deployments), 0))
        self._decoders: dict[TopicPartition, msgspec.json.Decoder[Any]] = {
            self._steps: decoder(RetrainingRecord), self._alerts: decoder(AlertRecord), self._deployments: decoder(DeploymentRecord),
        }  # fmt: skip

    async def __aenter__(self) -> Logs:
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._reader.stop()

    async def catch_up(self) -> None:
        """Reads what was written since."""
        async for fetched in read_to_end(self._reader):
            for place, records in fetched.items():
                for record in decoded_of({place: records}, self._decoders[place].decode, logged):
                    self._take(record)

    def _take(self, record: RetrainingRecord | AlertRecord | DeploymentRecord) -> None:
        if isinstance(record, RetrainingRecord):
            if record.model == self._model:
                self.history.take(record)
        elif isinstance(record, AlertRecord):
            self.alerts = standing([*self.alerts, with_source(record)])
        else:
            self.deployments[record.model] = record

    async def append(self, record: RetrainingRecord) -> None:
        """Writes a step, and reads it back, with what others wrote before it."""
        with kafka_errors(self._kafka):
            async with asyncio.timeout(KAFKA_SECONDS):
                await append_retraining(self._kafka, self._project, record)
        await self.catch_up()
