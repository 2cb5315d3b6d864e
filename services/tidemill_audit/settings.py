"""What the audit reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, field_validator

from tidemill.durations import parse_ms
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings, Settings


class PaceSettings(Settings):
    """How often it goes round, and how much of a processor it may take."""

    period: str = Field(
        "5m", validation_alias="TIDEMILL_AUDIT_PERIOD", description='a duration such as "5m": once in it every partition is looked at'
    )
    cpu: float = Field(
        0.1, validation_alias="TIDEMILL_AUDIT_CPU", gt=0, le=1, description="the share of one processor that it may take on average"
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


class AuditSettings(NamedTuple):
    """Where the project, Kafka, Redis, the offline store and the HTTP address are, and the pace."""

    project: ProjectSettings
    kafka: KafkaSettings
    redis: RedisSettings
    offline: OfflineSettings
    pace: PaceSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(
            ProjectSettings.load(),
            KafkaSettings.load(),
            RedisSettings.load(),
            OfflineSettings.load(),
            PaceSettings.load(),
            HttpSettings.load(),
        )
