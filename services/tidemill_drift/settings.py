"""What drift detection reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, field_validator

from tidemill.durations import parse_ms
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, Settings


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


class DriftSettings(NamedTuple):
    """Where the project, Kafka, the models and the HTTP address are, and the windows."""

    project: ProjectSettings
    kafka: KafkaSettings
    offline: OfflineSettings
    windows: WindowSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(ProjectSettings.load(), KafkaSettings.load(), OfflineSettings.load(), WindowSettings.load(), HttpSettings.load())
