"""The settings of the offline writer."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from tidemill.offline.mirror import FlushSettings
from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ServiceSettings, Settings


class ArchiveSettings(Settings):
    """How long the archive keeps events."""

    days: int | None = Field(
        None, validation_alias="TIDEMILL_ARCHIVE_DAYS", ge=1, description="days that events are archived after they became known"
    )


@dataclass(frozen=True, kw_only=True)
class OfflineWriterSettings(ServiceSettings):
    """What every service needs, Kafka, the offline store, and how often to commit, how long to keep."""

    kafka: KafkaSettings
    offline: OfflineSettings
    flush: FlushSettings
    archive: ArchiveSettings
