"""What retraining reads from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ServiceSettings, Settings
from tidemill_retraining.clocks import ClockName
from tidemill_retraining.evidence import GRACE_MS


class JobSettings(Settings):
    """How a training runs, and how often evidence is looked at."""

    command: str = Field(
        default="",
        validation_alias="TIDEMILL_RETRAINING_COMMAND",
        description="a command that trains and ends when the version is stored, for example of a Kubernetes job; {model}, {run} and {version} stand for their values",
    )
    megabytes: int = Field(
        default=4_096,
        validation_alias="TIDEMILL_RETRAINING_MEGABYTES",
        ge=64,
        description="the most memory in MB that a training may ask for",
    )
    nice: int = Field(
        default=10,
        validation_alias="TIDEMILL_RETRAINING_NICE",
        ge=0,
        le=19,
        description="a number from 0 to 19, by which a training is nicer",
    )
    seconds: int = Field(
        default=6 * 3600,
        validation_alias="TIDEMILL_RETRAINING_SECONDS",
        ge=1,
        description="how many seconds a training may take; then it is ended",
    )
    rehearsal_seconds: int = Field(
        default=120,
        validation_alias="TIDEMILL_RETRAINING_REHEARSAL_SECONDS",
        ge=1,
        description="how many seconds a new version may take to be rehearsed",
    )
    look_seconds: float = Field(
        default=5.0,
        validation_alias="TIDEMILL_RETRAINING_LOOK_SECONDS",
        gt=0,
        description="how many seconds lie between two looks at the evidence",
    )
    grace_seconds: float = Field(
        default=GRACE_MS / 1000,
        validation_alias="TIDEMILL_RETRAINING_GRACE_SECONDS",
        gt=0,
        description="how many seconds after the champion's answer a shadow's may be logged",
    )
    clock: ClockName = Field(
        default="machine",
        validation_alias="TIDEMILL_RETRAINING_CLOCK",
        description='"machine", or for replays "requests": the time by which runs begin, rest and end is that of the newest request',
    )

    @property
    def grace_ms(self) -> int:
        """`grace_seconds` in ms."""
        return round(self.grace_seconds * 1000)


@dataclass(frozen=True, kw_only=True)
class RetrainingSettings(ServiceSettings):
    """What every service needs, Kafka, the offline store for the models, and how a training runs."""

    kafka: KafkaSettings
    offline: OfflineSettings
    job: JobSettings
