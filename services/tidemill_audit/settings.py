"""What the audit reads from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, field_validator

from tidemill.archive.retention import ArchiveSettings
from tidemill.durations import parse_ms
from tidemill.registry import RegistrySettings
from tidemill.runtime.settings import KafkaSettings, OfflineSettings, RedisSettings, ServiceSettings, Settings


class PaceSettings(Settings):
    """How long a round takes, and how much of a processor it may use."""

    period: str = Field(
        "5m", validation_alias="TIDEMILL_AUDIT_PERIOD", description='a duration such as "5m": every partition is compared once in it'
    )
    cpu: float = Field(
        0.1, validation_alias="TIDEMILL_AUDIT_CPU", gt=0, le=1, description="the share of one processor that it may use on average"
    )

    @field_validator("period")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        parse_ms(value)
        return value

    @property
    def period_seconds(self) -> float:
        """The period."""
        return parse_ms(self.period) / 1000


@dataclass(frozen=True, kw_only=True)
class AuditSettings(ServiceSettings):
    """What every service needs, Kafka, both stores, the pace, and how long the archive keeps events."""

    kafka: KafkaSettings
    registry: RegistrySettings
    redis: RedisSettings
    offline: OfflineSettings
    pace: PaceSettings
    archive: ArchiveSettings
