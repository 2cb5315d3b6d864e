"""Where the schema registry is."""

from __future__ import annotations

from pydantic import Field

from tidemill.runtime.settings import Settings


class RegistrySettings(Settings):
    """Where the schema registry is; unset: there is none."""

    url: str | None = Field(
        default=None,
        validation_alias="TIDEMILL_SCHEMA_REGISTRY",
        pattern=r"^https?://",
        description="the address of the schema registry, http://[user:password@]host:port",
    )
