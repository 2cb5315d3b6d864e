"""The settings of inference."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidemill.runtime.settings import EngineSettings, KafkaSettings, OfflineSettings, RedisSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class InferenceSettings(ServiceSettings):
    """What every service needs, Kafka, Redis, the offline store for the models, and how their own pipelines are treated."""

    kafka: KafkaSettings
    redis: RedisSettings
    offline: OfflineSettings
    engine: EngineSettings = field(default_factory=EngineSettings.load)
