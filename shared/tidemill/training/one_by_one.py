"""A pipeline of river as training takes pipelines: it is fitted by learning the rows once, in the order of time."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from tidemill.declarations import Model
from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.models.incremental import Incremental, NamedColumn, columns_of, named
from tidemill.training.dataset import Floats, TrainingSet


class OneByOne(BaseEstimator):  # type: ignore[misc]
    """`pipeline`: of river, which has learned nothing; it stays so. `columns`: the inputs of a row, which `takes` tells before `fit`."""

    def __init__(self, pipeline: Any = None, columns: tuple[NamedColumn, ...] = ()) -> None:
        self.pipeline, self.columns = pipeline, columns

    def takes(self, inputs: list[ModelInput]) -> Self:
        """Tells the inputs of the rows."""
        self.columns = columns_of(inputs)
        return self

    def fit(self, rows: Floats, labels: Any) -> Self:
        """Learns all rows, one after the other. Raises what the pipeline raises."""
        self.served = Incremental(copy.deepcopy(self.pipeline), self.columns, self._classes(labels))
        for row, label in zip(rows, np.asarray(labels, np.float64).tolist(), strict=True):
            self.served.learn(named(self.columns, row.tolist()), label)
        return self

    def predict(self, rows: Floats) -> Any:
        """Values, or the places of classes."""
        return self.served.predict(rows)

    def _classes(self, labels: Any) -> int:
        return 0


class OneByOneClassifier(ClassifierMixin, OneByOne):  # type: ignore[misc]
    """Of classes 0, 1, 2 and so on."""

    def predict_proba(self, rows: Floats) -> Floats:
        """A column for each class."""
        return self.served.predict_proba(rows)

    def _classes(self, labels: Any) -> int:
        return max(2, int(np.max(labels)) + 1)


class OneByOneRegressor(RegressorMixin, OneByOne):  # type: ignore[misc]
    """Of values."""


def made_pipeline(model: Model) -> Any:
    """What a model's function returns; a pipeline of river as an estimator. Raises what that function raises, and TidemillError for what river calls neither
    classifier nor regressor."""
    made = model.pipeline()
    if isinstance(made, type) or not hasattr(made, "learn_one"):
        if model.online is not None:
            raise TidemillError(
                f"model {model.name!r} learns with each outcome, and {type(made).__name__} has no learn_one",
                mend="return a pipeline of river from the function given as pipeline, or leave online out",
            )
        return made
    from river import base  # noqa: PLC0415 - only who uses it has it

    if isinstance(made, base.Classifier):
        return OneByOneClassifier(made)
    if isinstance(made, base.Regressor):
        return OneByOneRegressor(made)
    raise TidemillError(
        f"model {model.name!r}: {type(made).__name__} is neither a classifier nor a regressor of river", mend="let it end with one of them"
    )


def told_inputs(made: Any, examples: TrainingSet) -> Any:
    """The same estimator; one that learns row by row knows its inputs now."""
    return made.takes(examples.inputs) if isinstance(made, OneByOne) else made


def served_form(pipeline: Any) -> Any:
    """What is pickled of a fitted pipeline: of one that learned row by row what needs no scikit-learn."""
    return pipeline.served if isinstance(pipeline, OneByOne) else pipeline
