"""From a margin to an answer: the scale on which contributions add up, and what the answer is there."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tidemill.models.artifact import Output

Floats = npt.NDArray[np.float64]

Scale = Literal["probability", "log_odds", "value", "log"]
"""Contributions are of the answer itself, or of its log odds (a probability) or its logarithm (a value)."""

_NEAR = {"probability": 4e-6, "log_odds": 4e-6, "value": 2e-5, "log": 2e-5}  # what float32 loses in a sum of some hundred trees
_SURE = 1e-3  # nearer to 0 or 1 than this, float32 does not tell the log odds


class Link(NamedTuple):
    """answer = f(slope * margin + offset), f by the scale."""

    scale: Scale
    slope: float = 1.0
    offset: float = 0.0

    def on_scale(self, margin: Floats | float) -> Floats:
        """A margin on the scale."""
        return np.asarray(self.slope * np.asarray(margin, np.float64) + self.offset)

    def near(self, margins: Floats, answers: Floats, size: float = 0.0) -> bool:
        """Whether margins give the answers, but for the last digits of float32. `size`: of the numbers whose sum a value is."""
        apart = np.abs(answer_on(self.scale, self.on_scale(margins)) - answers)
        size = 1.0 if self.scale in ("probability", "log_odds") else max(float(np.abs(answers).max()), size, 1e-30)
        return bool(np.all(apart <= _NEAR[self.scale] * size))


def scale_of(output: Output) -> Scale:
    """The scale of an answer as it is: a value, or a probability (of several classes that of the answered one)."""
    return "value" if output == "value" else "probability"


def answer_on(scale: Scale, place: Floats) -> Floats:
    """The answer at a place of a scale."""
    with np.errstate(over="ignore"):
        if scale == "log_odds":
            return np.asarray(1 / (1 + np.exp(-place)))
        return np.asarray(np.exp(place)) if scale == "log" else place


def fitting_link(margins: Floats, answers: Floats, output: Output) -> Link | None:
    """The link by which all these margins give their answers; None if there is none."""
    if not (np.isfinite(margins).all() and np.ptp(margins) > 0 and np.ptp(answers) > 0):
        return None
    scales: tuple[Scale, ...] = ("probability", "log_odds") if output == "probability" else ("value", "log")
    tried = [Link(scale, slope) for scale in scales for slope in (1.0, -1.0)]
    tried += [found for scale in scales if (found := _line(scale, margins, answers))]
    return next((link for link in tried if link.near(margins, answers)), None)


def _line(scale: Scale, margins: Floats, answers: Floats) -> Link | None:
    """Slope and offset by least squares, from the rows whose place on the scale is known well."""
    sure = np.full(len(answers), True)
    if scale == "log_odds":
        sure = (answers > _SURE) & (answers < 1 - _SURE)
    elif scale == "log":
        sure = answers > 0
    known, places = margins[sure], answers[sure]
    if len(known) < 3 or np.ptp(known) == 0:
        return None
    if scale == "log_odds":
        places = np.log(places) - np.log1p(-places)
    elif scale == "log":
        places = np.log(places)
    slope, offset = np.polyfit(known, places, 1)
    return Link(scale, float(slope), float(offset))
