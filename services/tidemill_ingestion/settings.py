"""What ingestion reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from tidemill.runtime.settings import HttpSettings, KafkaSettings, ProjectSettings


class IngestionSettings(NamedTuple):
    """Where the project, Kafka and the HTTP address are."""

    project: ProjectSettings
    kafka: KafkaSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(ProjectSettings.load(), KafkaSettings.load(), HttpSettings.load())
