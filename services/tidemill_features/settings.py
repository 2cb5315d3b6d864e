"""What the environment may say about this service alone."""

from __future__ import annotations

from pydantic import Field

from tidemill.runtime.settings import Settings


class FeaturesSettings(Settings):
    """Limits of one worker."""

    cache_mb: int = Field(
        256,
        validation_alias="TIDEMILL_FEATURES_CACHE_MB",
        ge=1,
        description="megabytes of entities one worker keeps in memory, shared evenly by its partitions",
    )
