"""The settings of feature computation."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from tidemill.runtime.settings import KafkaSettings, RedisSettings, ServiceSettings, Settings


class LimitSettings(Settings):
    """Limits of one worker."""

    cache_mb: int = Field(
        256,
        validation_alias="TIDEMILL_FEATURES_CACHE_MB",
        ge=1,
        description="megabytes of entities one worker keeps in memory, shared evenly by its partitions",
    )


@dataclass(frozen=True, kw_only=True)
class FeaturesSettings(ServiceSettings):
    """What every service needs, Kafka, Redis, and the limits."""

    kafka: KafkaSettings
    redis: RedisSettings
    limits: LimitSettings
