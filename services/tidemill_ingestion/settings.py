"""The settings of ingestion, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.registry import RegistrySettings
from tidemill.runtime.settings import KafkaSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class IngestionSettings(ServiceSettings):
    """The settings of every service, and Kafka."""

    kafka: KafkaSettings
    registry: RegistrySettings
