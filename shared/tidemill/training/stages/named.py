"""Dropping inputs from a pipeline that names its columns: from the lists of its column transformers, before it is fitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from tidemill.errors import TidemillError
from tidemill.training.steps import NOTHING

DROPPED = "not chosen"
_DROP = "drop"


def without(pipeline: Any, names: Sequence[str], dropped: Sequence[str]) -> Any:
    """The pipeline, not fitted, with column transformers that take none of the `dropped` inputs. `names`: of all inputs, in order.

    Its steps keep their names. Raises TidemillError for columns that are chosen in a way that cannot be narrowed.
    """
    found = list(_first_ones(pipeline))
    if not found:
        raise TidemillError(
            f"the columns of {type(pipeline).__name__} are named in a part of it, from which inputs cannot be dropped",
            mend="put the ColumnTransformer first in the pipeline, or leave select= out",
        )
    gone = set(dropped)
    for transformer in found:
        kept = [_narrowed(part, names, gone) for part in transformer.transformers]
        rest = [] if transformer.remainder == _DROP else [(DROPPED, _DROP, [name for name in names if name in gone])]
        transformer.set_params(transformers=[*kept, *rest])
    return pipeline


def unknown_columns(pipeline: Any, names: Sequence[str]) -> list[str]:
    """The columns that a pipeline, not fitted, names and that are none of its inputs."""
    lists = [columns for transformer in _first_ones(pipeline) for _, _, columns in transformer.transformers]
    flat = [one for columns in lists for one in _listed(columns)]
    return [one for one in dict.fromkeys(flat) if isinstance(one, str) and one not in names]


def _listed(columns: Any) -> list[Any]:
    if isinstance(columns, str):
        return [columns]
    return list(columns) if isinstance(columns, Sequence | np.ndarray) else []


def _first_ones(estimator: Any) -> Iterator[Any]:
    """The column transformers that get the data frame itself."""
    if isinstance(estimator, ColumnTransformer):
        yield estimator
    elif isinstance(estimator, Pipeline):
        yield from _first_ones(next((step for _, step in estimator.steps if step not in NOTHING), None))
    elif isinstance(estimator, FeatureUnion):
        for _, step in estimator.transformer_list:
            yield from _first_ones(step)
    elif hasattr(estimator, "estimator"):  # a search, a calibration
        yield from _first_ones(estimator.estimator)
    else:
        for part in getattr(estimator, "estimators", None) or ():  # a vote, a stack
            yield from _first_ones(part[1] if isinstance(part, tuple) else part)


def _narrowed(part: tuple[str, Any, Any], names: Sequence[str], gone: set[str]) -> tuple[str, Any, Any]:
    label, step, columns = part
    if callable(columns):
        return label, step, Narrowed(columns, frozenset(gone))
    if isinstance(columns, str):
        return (label, _DROP, []) if columns in gone else part
    if isinstance(columns, slice) or any(isinstance(one, bool | np.bool_) for one in columns):
        raise TidemillError(
            f"step {label!r} takes its columns by {'a slice' if isinstance(columns, slice) else 'a mask'}, from which inputs cannot be dropped",
            mend="name its columns in a list, or leave select= out",
        )
    kept = [one for one in columns if (one if isinstance(one, str) else names[one]) not in gone]
    return (label, step, kept) if kept else (label, _DROP, [])


class Narrowed:
    """A selector of columns, such as `make_column_selector(...)`, without some of them."""

    def __init__(self, selector: Any, gone: frozenset[str]) -> None:
        self._selector, self._gone = selector, gone

    def __call__(self, rows: Any) -> list[str]:
        """The names of the columns that it chooses of a data frame."""
        return [name for name in self._selector(rows) if name not in self._gone]
