"""The settings of inference."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.runtime.settings import KafkaSettings, OfflineSettings, RedisSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(ServiceSettings):
    """What every service needs, Kafka, Redis, and the offline store for the models."""

    kafka: KafkaSettings
    redis: RedisSettings
    offline: OfflineSettings
