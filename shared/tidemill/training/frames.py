"""A pipeline that names its columns gets a data frame: numbers as float32, texts as texts, what is missing as NaN.

Its ONNX form takes the same float32 matrix as any other model, so serving, log and replay know nothing of this: texts come as their numbers
and are texts again within the graph. A text that was not there in training is told apart from a missing one: it has a number of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from tidemill.errors import TidemillError
from tidemill.models.artifact import ModelInput
from tidemill.models.frame import frame
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.mends import WORDS_MEND
from tidemill.training.steps import NOTHING, chosen_columns, searched, steps_of


def names_columns(pipeline: Any) -> bool:
    """Whether a part of a pipeline, fitted or not, chooses columns by their names or by their types."""
    parts = [pipeline, *pipeline.get_params(deep=True).values()] if hasattr(pipeline, "get_params") else [pipeline]
    return any(_by_name(columns) for part in parts if isinstance(part, ColumnTransformer) for _, _, columns in part.transformers)


def _by_name(columns: Any) -> bool:
    if callable(columns) or isinstance(columns, str):
        return True
    return isinstance(columns, Sequence | np.ndarray) and any(isinstance(column, str) for column in columns)


def with_unknown(examples: TrainingSet) -> TrainingSet:
    """The set for a pipeline that names its columns: after the texts of each category comes the one that stands for any other."""
    inputs = [
        msgspec.structs.replace(spec, categories=[*spec.categories, UNKNOWN_TEXT]) if spec.is_category else spec for spec in examples.inputs
    ]
    return dataclasses.replace(examples, inputs=inputs)


def given(pipeline: Any, inputs: Sequence[ModelInput], matrix: Floats) -> Any:
    """Rows of a matrix as a pipeline gets them: a data frame if it names columns, else the matrix."""
    return frame(inputs, matrix) if names_columns(pipeline) else matrix


def check_blocks(pipeline: Any, inputs: Sequence[ModelInput]) -> None:
    """Raises TidemillError for a part of a fitted pipeline that takes texts and numbers together, or the words of a text."""
    names = {spec.name for spec in inputs if spec.is_category}
    if names and list(column_transformers(pipeline)) != list(column_transformers(pipeline, within=False)):
        raise TidemillError(
            f"{type(searched(pipeline)).__name__} holds pipelines that take texts each by itself",
            mend=f"take the columns before it: make_pipeline(make_column_transformer(...), {type(searched(pipeline)).__name__}(...))",
        )
    for part in column_transformers(pipeline):
        taken = dict(zip(part.feature_names_in_, range(len(part.feature_names_in_)), strict=True))
        texts = {taken[name] for name in names & taken.keys()}
        for name, step, chosen in part.transformers_:
            columns = set(chosen_columns(part, chosen))
            if step != "drop" and columns & texts and columns - texts:
                raise TidemillError(
                    f"step {name!r} ({type(step).__name__}) takes texts and numbers together",
                    mend="give the texts to one transformer and the numbers to another",
                )
    for step in steps_of(pipeline):
        if hasattr(step.estimator, "vocabulary_"):
            raise TidemillError(
                f"{step.title} takes words, but a text that was not there in training has no words when it is served",
                mend=WORDS_MEND,
            )


def column_transformers(estimator: Any, *, within: bool = True) -> Iterator[Any]:
    """The fitted column transformers that get the data frame itself; with `within`, also those in a vote, a stack or a calibration."""
    estimator = searched(estimator)
    if isinstance(estimator, ColumnTransformer):
        yield estimator
    elif isinstance(estimator, Pipeline):
        first = next((step for _, step in estimator.steps if step not in NOTHING), None)
        yield from column_transformers(first, within=within)
    elif isinstance(estimator, FeatureUnion):
        for _, step in estimator.transformer_list:
            yield from column_transformers(step, within=within)
    if not within:
        return
    for part in getattr(estimator, "calibrated_classifiers_", ()):
        yield from column_transformers(part.estimator)
    if isinstance(found := getattr(estimator, "estimators_", None), list):
        for part in found:
            yield from column_transformers(part)
