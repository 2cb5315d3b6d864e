"""The settings of the offline writer."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.archive.retention import ArchiveSettings
from tidemill.offline.mirror import FlushSettings
from tidemill.registry import RegistrySettings
from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class OfflineWriterSettings(ServiceSettings):
    """What every service needs, Kafka, the offline store, and how often to commit, how long to keep."""

    kafka: KafkaSettings
    registry: RegistrySettings
    offline: OfflineSettings
    flush: FlushSettings
    archive: ArchiveSettings
