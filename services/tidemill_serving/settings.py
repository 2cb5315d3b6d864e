"""What feature serving reads from the environment."""

from __future__ import annotations

from typing import NamedTuple, Self

from tidemill.runtime.settings import HttpSettings, ProjectSettings, RedisSettings


class ServingSettings(NamedTuple):
    """Where the project, Redis and the HTTP address are."""

    project: ProjectSettings
    redis: RedisSettings
    http: HttpSettings

    @classmethod
    def load(cls) -> Self:
        """Read the environment. Raises SettingsError."""
        return cls(ProjectSettings.load(), RedisSettings.load(), HttpSettings.load())
