"""The settings of training, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ProjectSettings, Settings, SettingsGroup


class SearchSettings(Settings):
    """Where the processes of a search are."""

    ray: str | None = Field(
        default=None,
        validation_alias="TIDEMILL_RAY",
        description='the address of a Ray cluster ("auto", "ray://host:10001"), or "local"; unset: processes of this machine',
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(SettingsGroup):
    """Project, offline store, Kafka for the deployment event, and where parameters are searched."""

    project: ProjectSettings
    offline: OfflineSettings
    kafka: KafkaSettings
    search: SearchSettings
