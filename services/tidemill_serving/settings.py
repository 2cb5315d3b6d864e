"""The settings of feature serving."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.runtime.settings import RedisSettings, ServiceSettings


@dataclass(frozen=True, kw_only=True)
class ServingSettings(ServiceSettings):
    """What every service needs, and Redis."""

    redis: RedisSettings
