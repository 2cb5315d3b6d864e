"""Models in memory: a version that is ready to answer, and the versions of a model that serve now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidemill.declarations import Model
from tidemill.errors import UnknownModel
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import Manifest
from tidemill.models.engine import Engine
from tidemill.models.inputs import ModelInputs
from tidemill.models.roles import Seat, Traffic, traffic_key


@dataclass(frozen=True)
class LoadedVersion:
    """A model version in memory, checked and warm. `kernels`: one for each view of `inputs`, as the version was trained on it."""

    model: Model
    manifest: Manifest
    engine: Engine
    inputs: ModelInputs
    kernels: Sequence[ViewKernel]


class LoadedModel:
    """The versions of a model that serve at one moment; at least one has a share. Each deployment makes a new LoadedModel."""

    def __init__(self, name: str, seats: Sequence[Seat], versions: Mapping[str, LoadedVersion]) -> None:
        self.name = name
        self.seats = seats
        self.versions = [versions[seat.version] for seat in seats]
        """First the champion, or the version in its place."""
        self.shadows = [versions[seat.version] for seat in seats if seat.role == "shadow"]
        """Those that are asked what they would have answered."""
        self._by_name = versions
        self._traffic = Traffic(name, seats) if sum(seat.share > 0 for seat in seats) > 1 else None
        self._only = next(versions[seat.version] for seat in seats if seat.share > 0)

    @property
    def first(self) -> LoadedVersion:
        """The version that describes the model when a request names no version: its champion."""
        return self.versions[0]

    def choose(self, entities: Sequence[bytes | None], prediction_id: str) -> LoadedVersion:
        """The version that answers a request: a function of the keys of its entities, or of the prediction's id if it has no entity."""
        if self._traffic is None:
            return self._only
        return self._by_name[self._traffic.version(traffic_key(entities, prediction_id))]

    def version(self, name: str) -> LoadedVersion:
        """A version by its name. Raises UnknownModel."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownModel(f"{self.name} version {name}", [f"{self.name} version {seat.version}" for seat in self.seats]) from None
