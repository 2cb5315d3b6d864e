"""The versions of views that services run, as the catalogue says now."""

from __future__ import annotations

import asyncio

from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import Catalogue
from tidemill.streams.following import InForce, in_force


class Versions:
    """Follows the catalogue while `run` runs. `now`: what services work by; before the first record what the project's file declares."""

    def __init__(self, kafka: KafkaSettings, declared: Project) -> None:
        self._kafka, self._declared = kafka, declared
        self.now = InForce(declared)

    @property
    def project(self) -> Project:
        """The versions that were handed over."""
        return self.now.project

    async def run(self) -> None:
        """Follow for ever, whenever Kafka answers."""
        while True:
            try:
                async with Catalogue(self._kafka, self._declared.name) as catalogue:
                    while True:
                        if catalogue.now.number > self.now.definitions.number:
                            self.now = in_force(catalogue.now, self._declared)
                        await catalogue.changed()
            except (TidemillError, OSError):
                await asyncio.sleep(0.5)

    async def reach(self, number: int) -> None:
        """Return when record `number` of the catalogue was read."""
        while self.now.definitions.number < number:
            await asyncio.sleep(0.1)
