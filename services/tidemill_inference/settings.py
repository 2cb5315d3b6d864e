"""What inference reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, RedisSettings


class InferenceSettings(NamedTuple):
    """Where the project, Kafka, Redis, the models and the HTTP address are."""

    project: ProjectSettings
    kafka: KafkaSettings
    redis: RedisSettings
    offline: OfflineSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(ProjectSettings.load(), KafkaSettings.load(), RedisSettings.load(), OfflineSettings.load(), HttpSettings.load())
