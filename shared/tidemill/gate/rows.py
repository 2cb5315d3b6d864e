"""The rows that the gate judges: requests with an outcome, and what a champion and a challenger lost on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


class PairedLosses(NamedTuple):
    """Requests that both answered. `champion`, `challenger`: losses from 0 to 1; `clusters`: rows of one text hang together; `segments`: a text for each row, by
    field. `outcomes`, and the two outputs, where these are probabilities of a true class, else empty."""

    champion: Floats
    challenger: Floats
    clusters: Sequence[str] = ()
    segments: Mapping[str, Sequence[str]] = {}
    outcomes: Floats = np.empty(0)
    champion_outputs: Floats = np.empty(0)
    challenger_outputs: Floats = np.empty(0)

    @property
    def gains(self) -> Floats:
        """By how much the challenger lost less, row by row."""
        return self.champion - self.challenger

    def independent(self) -> PairedLosses:
        """The first row of each cluster: rows of one subject or entity would count as evidence that they are not."""
        if not len(self.clusters):
            return self
        return self.taken(np.array(sorted(_firsts(self.clusters)), np.int64))

    def taken(self, places: npt.NDArray[np.int64]) -> PairedLosses:
        """Some of the rows."""

        def some(values: Floats) -> Floats:
            return values[places] if len(values) else values

        def texts(values: Sequence[str]) -> Sequence[str]:
            return [values[place] for place in places] if len(values) else values

        return PairedLosses(
            some(self.champion),
            some(self.challenger),
            texts(self.clusters),
            {field: texts(values) for field, values in self.segments.items()},
            some(self.outcomes),
            some(self.champion_outputs),
            some(self.challenger_outputs),
        )


class Dealt(NamedTuple):
    """Requests that one of the two answered, by chance: the challenger a known share. `losses`: of the version that answered; `challenger`: whether that was
    the challenger."""

    losses: Floats
    challenger: npt.NDArray[np.bool_]
    share: float
    clusters: Sequence[str] = ()

    def harms(self, expected: float) -> Floats:
        """Differences whose mean is by how much more the challenger loses, from -1 to 1 after division by `most`. `expected`: about what a row loses, known
        before these rows; the nearer, the sharper.

        A row stands for 1/share rows of its version, so the mean is right whatever was dealt to whom.
        """
        losses, challenger = (self.losses, self.challenger) if not len(self.clusters) else self._firsts()
        apart = losses - expected
        found: Floats = np.where(challenger, apart / self.share, -apart / (1 - self.share)) / self.most
        return found

    @property
    def most(self) -> float:
        """The largest possible difference of one row."""
        return max(1 / self.share, 1 / (1 - self.share))

    def _firsts(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        places = np.array(sorted(_firsts(self.clusters)), np.int64)
        return self.losses[places], self.challenger[places]


def _firsts(clusters: Sequence[str]) -> list[int]:
    first = dict[str, int]()
    for place, name in enumerate(clusters):
        first.setdefault(name, place)
    return list(first.values())
