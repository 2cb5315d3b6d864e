"""The steps of a pipeline, by name: which one fails, and what rows reach it.

A step has a path, such as `columntransformer > onehotencoder`: the names that scikit-learn gives to the parts of pipelines, of column
transformers and of unions. A search counts as its best estimator.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

NOTHING = ("passthrough", "drop", None)
"""What may stand in the place of a step."""


class Step(NamedTuple):
    """A part of a pipeline that has no named parts itself, and the rows that reach it (None: not known)."""

    path: tuple[str, ...]
    estimator: Any
    rows: Any = None

    @property
    def title(self) -> str:
        """How an error names it: "step 'scale' (StandardScaler)", or the class alone for a pipeline of one step."""
        kind = type(self.estimator).__name__
        return f"step {' > '.join(self.path)!r} ({kind})" if self.path else kind


class Failed(NamedTuple):
    """The step that failed, and its error."""

    step: Step
    error: Exception


def searched(estimator: Any) -> Any:
    """The best estimator of a search that was fitted; any other estimator is given back."""
    return searched(estimator.best_estimator_) if hasattr(estimator, "best_estimator_") else estimator


def last_step(estimator: Any) -> Step:
    """The step that predicts, of a pipeline that was fitted or not."""
    path: tuple[str, ...] = ()
    while isinstance(found := searched(getattr(estimator, "estimator", estimator) if _is_search(estimator) else estimator), Pipeline):
        name, estimator = found.steps[-1]
        path = (*path, name)
    return Step(path, found)


def steps_of(estimator: Any, rows: Any = None, path: tuple[str, ...] = ()) -> Iterator[Step]:
    """The steps of a fitted pipeline in the order in which they run, with the rows that reach each one. Without rows, a step has none.

    Raises what a step raises when the rows of the next one are asked for.
    """
    estimator = searched(estimator)
    if isinstance(estimator, Pipeline):
        for name, step in estimator.steps:
            if step not in NOTHING:
                yield from steps_of(step, rows, (*path, name))
                rows = step.transform(rows) if rows is not None and step is not estimator.steps[-1][1] else None
    elif isinstance(estimator, ColumnTransformer):
        for name, step, columns in estimator.transformers_:
            if not isinstance(step, str):
                yield from steps_of(step, None if rows is None else _columns(rows, columns), (*path, name))
    elif isinstance(estimator, FeatureUnion):
        for name, step in estimator.transformer_list:
            if step not in NOTHING:
                yield from steps_of(step, rows, (*path, name))
    else:
        yield Step(path, estimator, rows)


def chosen_columns(whole: ColumnTransformer, columns: Any) -> list[int]:
    """The places of the columns that a part of a fitted column transformer chooses, by name, number, slice or mask."""
    names = list(getattr(whole, "feature_names_in_", ()))
    if isinstance(columns, slice):
        first, last = (names.index(end) if isinstance(end, str) else end for end in (columns.start, columns.stop))
        last = last + 1 if isinstance(columns.stop, str) else last  # by name, the end is one of them
        return list(range(whole.n_features_in_))[slice(first, last, columns.step)]
    found = np.atleast_1d(np.asarray(columns, dtype=object if _is_empty(columns) else None))
    if found.dtype == bool:
        return [int(place) for place in np.flatnonzero(found)]
    return [names.index(column) if isinstance(column, str) else int(column) % whole.n_features_in_ for column in found.tolist()]


def _is_empty(columns: Any) -> bool:
    return hasattr(columns, "__len__") and len(columns) == 0


def first_that_fails(estimator: Any, rows: Any, attempt: Callable[[Step], object]) -> Failed | None:
    """The first step of a fitted pipeline on which `attempt` raises; None when it raises on none."""
    steps = steps_of(estimator, rows)
    step = Step((), estimator, rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says what is wrong
            for step in steps:
                attempt(step)
    except Exception as error:  # of any library
        return Failed(step, error)
    return None


def fails_to_fit(estimator: Any, rows: Any, labels: Any, error: Exception) -> Failed:
    """The step of an unfitted pipeline that cannot be fitted. `error`: what the whole pipeline raised."""
    return _fails_to_fit(_inner(estimator), rows, labels, error, ())


def _fails_to_fit(estimator: Any, rows: Any, labels: Any, error: Exception, path: tuple[str, ...]) -> Failed:
    blamed = Step(path, estimator, rows)
    try:
        for name, step, part, reached in _parts(estimator, rows, labels):
            blamed = Step((*path, name), part, reached)
            try:
                step.fit(reached, labels)
            except Exception as found:  # of any library
                return _fails_to_fit(part, reached, labels, found, blamed.path)
    except Exception as found:  # a step that was fitted cannot transform
        return Failed(blamed, found)
    return Failed(Step(path, estimator, rows), error)


def _parts(estimator: Any, rows: Any, labels: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Name, unfitted copy, original and rows of each part of an unfitted pipeline. A copy is fitted before the next part is asked for."""
    if isinstance(estimator, Pipeline):
        for name, step in estimator.steps:
            if step not in NOTHING:
                made = clone(step)
                yield name, made, step, rows
                if step is not estimator.steps[-1][1]:
                    rows = made.transform(rows)
    elif isinstance(estimator, ColumnTransformer):
        for name, step, columns in estimator.transformers:
            if not isinstance(step, str):
                yield name, clone(step), step, _columns(rows, columns)
    elif isinstance(estimator, FeatureUnion):
        for name, step in estimator.transformer_list:
            if step not in NOTHING:
                yield name, clone(step), step, rows


def _columns(rows: Any, columns: Any) -> Any:
    columns = columns(rows) if callable(columns) else columns
    names = columns
    if isinstance(names, str):
        return rows[names]
    if not hasattr(rows, "iloc"):
        return rows[:, names]
    by_name = not isinstance(names, slice) and all(isinstance(name, str) for name in names)
    return rows.loc[:, names] if by_name else rows.iloc[:, names]


def _is_search(estimator: Any) -> bool:
    return hasattr(estimator, "refit") and hasattr(estimator, "estimator")


def _inner(estimator: Any) -> Any:
    """What an unfitted search searches with."""
    return estimator.estimator if _is_search(estimator) else estimator
