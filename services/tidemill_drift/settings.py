"""What drift detection reads from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, field_validator

from tidemill.durations import parse_ms
from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ServiceSettings, Settings


class WindowSettings(Settings):
    """How long windows are and how many false alarms are accepted."""

    window: str = Field("7d", validation_alias="TIDEMILL_DRIFT_WINDOW", description='a duration of event time such as "1d" or "7d"')
    grace: str = Field(
        "1h", validation_alias="TIDEMILL_DRIFT_GRACE", description="a duration: how much later than its window a prediction may come"
    )
    budget: float = Field(
        0.01, validation_alias="TIDEMILL_DRIFT_BUDGET", gt=0, lt=1, description="the chance that a stationary window raises any alert"
    )

    @field_validator("window", "grace")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        parse_ms(value)
        return value


@dataclass(frozen=True, kw_only=True)
class DriftSettings(ServiceSettings):
    """What every service needs, Kafka, the offline store for the models, and the windows."""

    kafka: KafkaSettings
    offline: OfflineSettings
    windows: WindowSettings
