"""Models in memory: a version that is ready to answer, and a model as the versions that serve it now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemill.declarations import Model
from tidemill.errors import UnknownModel
from tidemill.models.artifact import Manifest
from tidemill.models.engine import Engine
from tidemill.models.inputs import ModelInputs
from tidemill.models.roles import Seat, Traffic


@dataclass(frozen=True)
class LoadedVersion:
    """A model version in memory, checked and warm."""

    model: Model
    manifest: Manifest
    engine: Engine
    inputs: ModelInputs


class LoadedModel:
    """The versions of a model that serve at one moment, of which at least one has a share. Another deployment makes another LoadedModel."""

    def __init__(self, name: str, seats: Sequence[Seat], versions: Mapping[str, LoadedVersion]) -> None:
        self.name = name
        self.seats = seats
        self.versions = [versions[seat.version] for seat in seats]
        """The champion first, or who stands in its place."""
        self._by_name = versions
        self._traffic = Traffic(name, seats)

    @property
    def first(self) -> LoadedVersion:
        """The version that describes the model to whoever names none: its champion."""
        return self.versions[0]

    def choose(self, key: bytes) -> LoadedVersion:
        """The version that answers a request of this key (`traffic_key`)."""
        return self._by_name[self._traffic.version(key)]

    def version(self, name: str) -> LoadedVersion:
        """A version by its name. Raises UnknownModel."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownModel(f"{self.name} version {name}", [f"{self.name} version {seat.version}" for seat in self.seats]) from None
