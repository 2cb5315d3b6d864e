"""Whose turn it is: of the models of a project at most one is trained or rehearsed at a time, while others may be judged."""

from __future__ import annotations


class Turn:
    """One turn, that a model takes and gives back."""

    def __init__(self) -> None:
        self._model = ""

    def other(self, model: str) -> str:
        """The model that has the turn; empty if nobody or `model` has it."""
        return "" if self._model == model else self._model

    def take(self, model: str) -> bool:
        """Gives the turn to a model, unless another one has it. Whether it has the turn now."""
        if self.other(model):
            return False
        self._model = model
        return True

    def leave(self, model: str) -> None:
        """Takes the turn back, if the model has it."""
        if self._model == model:
            self._model = ""
