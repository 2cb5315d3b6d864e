"""The data frame that a pipeline gets that names its columns: numbers as float32, texts as texts, what is missing as NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class FrameColumn(Protocol):
    """An input: its name, whether it is a text, and the texts whose places are its numbers."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def is_category(self) -> bool:
        """Whether it is a text."""

    @property
    def categories(self) -> list[str]:
        """The texts, in the order of their numbers."""


def frame(inputs: Sequence[FrameColumn], matrix: npt.NDArray[np.float32]) -> Any:
    """A pandas data frame with a column for each input, by its name."""
    import pandas as pd  # noqa: PLC0415 - only for pipelines that name columns

    return pd.DataFrame({spec.name: column(spec, matrix[:, i]) for i, spec in enumerate(inputs)})


def column(spec: FrameColumn, numbers: npt.NDArray[np.float32]) -> Any:
    """The values of one input."""
    if not spec.is_category:
        return numbers
    texts = np.array([*spec.categories, np.nan], dtype=object)
    return texts[np.where(np.isnan(numbers), len(spec.categories), numbers).astype(np.int64)]
