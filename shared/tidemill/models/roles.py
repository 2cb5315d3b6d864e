"""Which versions of a model serve, in which role, and which of them answers a request. Pure.

A deployment states all versions of a model that serve: one champion; challengers, which answer a share of the requests; and shadows, which
answer none. `Lineup` follows the deployments of one model and says which versions to load and which serve. `Traffic` chooses the version
that answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar

from tidemill.records import DeployedVersion, DeploymentRecord, Role

V = TypeVar("V")


class Seat(NamedTuple):
    """A version that serves, its role, and its share of the requests, from 0 to 1."""

    version: str
    role: Role
    share: float


class Traffic:
    """Which version answers a request: a pure function of the model, the shares and the request's key, so the same in every process.

    Each version draws a number from the key and its own name; the smallest number in proportion to the share wins (weighted rendezvous). So
    a key stays with its version while the shares stay, and moves only to a version whose share grew relative to that of its old version.
    """

    def __init__(self, model: str, seats: Sequence[Seat]) -> None:
        asked = [seat for seat in seats if seat.share > 0]
        self._draws = [(seat.version, seat.share, blake2b(f"{model}\0{seat.version}\0".encode(), digest_size=8)) for seat in asked]

    def version(self, key: bytes) -> str:
        """The version that answers a key."""
        best, least = self._draws[0][0], math.inf
        for version, share, hasher in self._draws:
            drawn = hasher.copy()
            drawn.update(key)
            uniform = (int.from_bytes(drawn.digest(), "big") + 0.5) / 2**64
            if (distance := -math.log(uniform) / share) < least:
                best, least = version, distance
        return best


def traffic_key(entities: Sequence[bytes | None], prediction_id: str) -> bytes:
    """The key for the choice of a version: the keys of all entities of the request, or the prediction's id if it has no entity."""
    if all(entity is None for entity in entities):
        return prediction_id.encode()
    return b"".join(b"-" if entity is None else b"%d:%s" % (len(entity), entity) for entity in entities)


class Lineup(Generic[V]):
    """The versions of one model: those deployed last, which of them are loaded (each as a `V`), and why the others are not.

    1. Pass the deployment records to `deploy`, in order.
    2. Load the version that `to_load` names, and report the result with `loaded` or `failed`; repeat until `to_load` gives None.
    3. `serving` says which versions serve.

    If the champion cannot be loaded, the newest earlier champion that can be loaded stands in. Until one is loaded, the version that acted
    as champion so far goes on.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        """Of the versions deployed last: version -> why it could not be loaded. The entry stays until the version is loaded."""
        self._again: set[str] = set()  # versions in `failures` to try again
        self._deployed: list[DeployedVersion] = []
        self._former: list[DeployedVersion] = []  # champions of earlier records, the newest first, each once
        self._unusable: set[str] = set()  # versions in `_former` that cannot be loaded
        self._held: dict[str, V] = {}
        self._acting: str | None = None  # the version that answers as the champion

    def deploy(self, records: Sequence[DeploymentRecord]) -> None:
        """Takes one or more records. The versions of the last one are to serve from now on. Raises BadDeployment (see `records`)."""
        for record in records:
            deployed, before = record.versions(), self._deployed[:1]
            self._former = before + [item for item in self._former if item.version not in [other.version for other in before]]
            self._deployed = deployed
        named = {item.version for item in self._deployed}
        self.failures = {version: reason for version, reason in self.failures.items() if version in named}
        self._again, self._unusable = set(self.failures), set()
        self._settle()

    def retry(self) -> None:
        """Makes `to_load` name again the versions that were deployed last and could not be loaded."""
        self._again = set(self.failures)

    def to_load(self) -> DeployedVersion | None:
        """The next version to load; None when nothing is left to try."""
        for item in self._deployed:
            if item.version not in self._held and (item.version not in self.failures or item.version in self._again):
                return item
        former = self._stand_in()
        return former if former and former.version not in self._held else None

    def loaded(self, version: str, made: V) -> None:
        """Notes that a version that `to_load` named is loaded."""
        self._held[version] = made
        self.failures.pop(version, None)
        self._settle()

    def failed(self, version: str, reason: str) -> None:
        """Notes that a version that `to_load` named cannot be loaded."""
        if any(item.version == version for item in self._deployed):
            self.failures[version] = reason
            self._again.discard(version)
        else:
            self._unusable.add(version)
        self._settle()

    def serving(self) -> tuple[list[Seat], Mapping[str, V]]:
        """The versions that serve, the champion first, and the loaded `V` of each. None serve while only shadows are loaded.

        The champion has the share that the challengers leave. Without a champion, the challengers answer everything, in proportion.
        """
        others = [item for item in self._deployed[1:] if item.version in self._held and item.version != self._acting]
        seats = [Seat(item.version, item.role, item.share) for item in others]
        if self._acting is not None:
            seats.insert(0, Seat(self._acting, "champion", max(0.0, 1 - math.fsum(seat.share for seat in seats))))
        if not any(seat.share > 0 for seat in seats):
            return [], {}
        return seats, {seat.version: self._held[seat.version] for seat in seats}

    def _stand_in(self) -> DeployedVersion | None:
        """The version to act while the champion cannot be loaded: the newest earlier champion that has not failed to load."""
        if self._deployed[0].version not in self.failures:
            return None
        return next((item for item in self._former if item.version not in self._unusable and item.version not in self.failures), None)

    def _settle(self) -> None:
        """Chooses the version that acts as champion, and releases every version that is neither deployed nor acting."""
        for item in (self._deployed[0], self._stand_in()):
            if item is not None and item.version in self._held:
                self._acting = item.version
                break
        kept = {item.version for item in self._deployed} | {self._acting}
        self._held = {version: made for version, made in self._held.items() if version in kept}
