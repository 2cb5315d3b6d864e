"""The settings of feature serving."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.runtime.settings import KafkaSettings, RedisSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class ServingSettings(ServiceSettings):
    """What every service needs, Redis, and Kafka, which holds the catalogue."""

    kafka: KafkaSettings
    redis: RedisSettings
