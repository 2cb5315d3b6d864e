"""Questions about predictions that are not there."""

from __future__ import annotations

from tidemill.errors import NotFound


class UnknownPrediction(NotFound):
    """The offline store has no prediction of this id (yet)."""

    kind = "prediction"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.mend = "see that the id is right; one that was answered just now is in the offline store within seconds (tidemill status)"
