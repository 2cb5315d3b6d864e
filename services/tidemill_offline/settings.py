"""What the offline writer reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from tidemill.offline.mirror import FlushSettings
from tidemill.runtime.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings


class OfflineWriterSettings(NamedTuple):
    """Where the project, Kafka, the offline store and the HTTP address are, and how often to commit."""

    project: ProjectSettings
    kafka: KafkaSettings
    offline: OfflineSettings
    flush: FlushSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(ProjectSettings.load(), KafkaSettings.load(), OfflineSettings.load(), FlushSettings.load(), HttpSettings.load())
