"""What drift detection reads from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pydantic import Field, field_validator, model_validator

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


class DeliverySettings(Settings):
    """Where alerts are delivered. What `..._ONLY` names, kinds, models, views or sources between commas, is all that a sink gets."""

    webhook: str | None = Field(
        None, validation_alias="TIDEMILL_ALERTS_WEBHOOK", pattern="^https?://", description="an address that takes JSON", repr=False
    )
    webhook_only: str = Field("", validation_alias="TIDEMILL_ALERTS_WEBHOOK_ONLY", description="words between commas")
    secret: str | None = Field(None, validation_alias="TIDEMILL_ALERTS_SECRET", description="what signs the webhook's JSON", repr=False)
    slack: str | None = Field(
        None,
        validation_alias="TIDEMILL_ALERTS_SLACK",
        pattern="^https?://",
        description="an incoming webhook of Slack or Mattermost",
        repr=False,
    )
    slack_only: str = Field("", validation_alias="TIDEMILL_ALERTS_SLACK_ONLY", description="words between commas")
    smtp: str | None = Field(
        None, validation_alias="TIDEMILL_ALERTS_SMTP", pattern="^smtps?://", description="smtp://user:password@host:port", repr=False
    )
    mail_from: str = Field("tidemill@localhost", validation_alias="TIDEMILL_ALERTS_MAIL_FROM", description="an address")
    mail_to: str = Field("", validation_alias="TIDEMILL_ALERTS_MAIL_TO", description="addresses between commas")
    mail_only: str = Field("", validation_alias="TIDEMILL_ALERTS_MAIL_ONLY", description="words between commas")

    @model_validator(mode="after")
    def _somebody_gets_mail(self) -> Self:
        if self.smtp and not self.words(self.mail_to):
            raise ValueError("TIDEMILL_ALERTS_MAIL_TO names nobody")
        return self

    @staticmethod
    def words(text: str) -> frozenset[str]:
        """The words between commas."""
        return frozenset(word.strip() for word in text.split(",") if word.strip())


@dataclass(frozen=True, kw_only=True)
class DriftSettings(ServiceSettings):
    """What every service needs, Kafka, the offline store for the models, the windows, and where alerts go."""

    kafka: KafkaSettings
    offline: OfflineSettings
    windows: WindowSettings
    delivery: DeliverySettings
