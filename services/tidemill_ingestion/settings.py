"""What ingestion reads from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.runtime.settings import KafkaSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class IngestionSettings(ServiceSettings):
    """What every service needs, and Kafka."""

    kafka: KafkaSettings
