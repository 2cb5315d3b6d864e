"""The settings of training, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.runtime.settings import KafkaSettings, OfflineSettings, ProjectSettings, SettingsGroup


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(SettingsGroup):
    """Project, offline store, and Kafka for the deployment event."""

    project: ProjectSettings
    offline: OfflineSettings
    kafka: KafkaSettings
