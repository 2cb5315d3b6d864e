"""What training needs from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ProjectSettings


@dataclass(frozen=True)
class TrainingSettings:
    """Project, offline store, and Kafka for the deployment event."""

    project: ProjectSettings
    offline: OfflineSettings
    kafka: KafkaSettings

    @classmethod
    def load(cls) -> Self:
        """Reads the environment. Raises SettingsError naming the variable and the mend."""
        return cls(ProjectSettings.load(), OfflineSettings.load(), KafkaSettings.load())
