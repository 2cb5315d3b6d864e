"""What the offline writer reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field

from tidemill.offline.mirror import Flush
from tidemill.settings import HttpSettings, KafkaSettings, OfflineSettings, ProjectSettings, Settings


class FlushSettings(Settings):
    """When a commit is due."""

    seconds: float = Field(
        1.0, validation_alias="TIDEMILL_FLUSH_SECONDS", gt=0, le=60, description="seconds between two commits of a table"
    )
    rows: int = Field(100_000, validation_alias="TIDEMILL_FLUSH_ROWS", ge=1, description="the most rows of a commit")

    def flush(self) -> Flush:
        """As the mirror takes it."""
        return Flush(self.seconds, self.rows)


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
