"""Which rows are held out: the set in the order in which it is cut, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa

from tidemill.declarations.training import ByGroup, ByTime, RollingOrigin
from tidemill.errors import TidemillError
from tidemill.training.answers import Ints
from tidemill.training.dataset import TrainingSet, taken

_PARTS = 10_000


class SetCut(NamedTuple):
    """`order`: the places of the rows, the held-out ones last (None: as they are); `cuts`: see `fit`; `said`: in words."""

    order: Ints | None
    cuts: list[int]
    said: str


def cut(model: str, examples: TrainingSet, split: ByTime | ByGroup | RollingOrigin) -> SetCut:
    """The cut of a set. Raises TidemillError when one side has no rows."""
    if isinstance(split, ByGroup):
        return _by_group(model, examples, split)
    first = int(len(examples) * (1 - split.holdout))
    if isinstance(split, ByTime):
        return SetCut(None, [first], f"by time: the last {len(examples) - first:,} of {len(examples):,} rows are held out")
    cuts = sorted({first + (len(examples) - first) * fold // split.folds for fold in range(split.folds)})
    return SetCut(
        None, cuts, f"rolling origin: the last {len(examples) - first:,} of {len(examples):,} rows are held out, in {len(cuts)} stretches"
    )


def _by_group(model: str, examples: TrainingSet, split: ByGroup) -> SetCut:
    values = pa.array(examples.subjects) if split.field == "subject" else examples.column(split.field)
    texts = values.cast(pa.string()).fill_null("").dictionary_encode()
    chosen = np.array([crc32(text.encode()) % _PARTS < split.holdout * _PARTS for text in texts.dictionary.to_pylist()])
    held = chosen[texts.indices.to_numpy()]
    if held.all() or not held.any():
        raise TidemillError(
            f"model {model!r}: {len(chosen)} values of {split.field!r} are too few to hold some out",
            mend="split by a field with more values, or by time",
        )
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    said = f"by {split.field}: {chosen.sum():,} of {len(chosen):,} groups are held out, {held.sum():,} of {len(held):,} rows"
    return SetCut(order, [int((~held).sum())], said)


@dataclass(frozen=True)
class CutSet:
    """A set in the order of its cut."""

    examples: TrainingSet
    cuts: list[int]

    @classmethod
    def of(cls, examples: TrainingSet, made: SetCut) -> CutSet:
        """The set, cut."""
        return cls(examples if made.order is None else taken(examples, made.order), made.cuts)

    @property
    def before(self) -> TrainingSet:
        """The rows that are not held out."""
        return taken(self.examples, np.arange(self.cuts[0]))
