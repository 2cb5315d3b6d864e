"""A pipeline that names its columns gets a data frame: numbers as float32, texts as texts, what is missing as NaN. A free text is one column ("" for
a missing one), a tensor a column for each element: `pixels_0`, `pixels_1` and so on.

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
from tidemill.models.frame import column
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.given_contents import element_names, elements, plain, texts_of
from tidemill.training.mends import WORDS_MEND
from tidemill.training.prepared import takes_texts
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
    """Rows of a matrix as a pipeline gets them: a data frame if it names columns, else the matrix; of a text alone the texts. Raises
    TidemillError for texts and others without names."""
    if names_columns(pipeline):
        return frame(inputs, matrix)
    return plain(inputs, matrix) if any(spec.is_content for spec in inputs) else matrix


def frame(inputs: Sequence[ModelInput], matrix: Floats) -> Any:
    """A pandas data frame with a column for each input, by its name."""
    import pandas as pd  # noqa: PLC0415 - only for pipelines that name columns

    columns: dict[str, Any] = {}
    for i, spec in enumerate(inputs):
        if spec.kind == "tensor":
            columns |= dict(zip(element_names(spec), elements(spec, matrix[:, i]).T, strict=True))
        else:
            columns[spec.name] = texts_of(spec, matrix[:, i]) if spec.kind == "words" else column(spec, matrix[:, i])
    return pd.DataFrame(columns)


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
        _check_words(pipeline, part, {spec.name for spec in inputs if spec.kind == "words"}, names)


def _check_words(pipeline: Any, part: Any, words: set[str], categories: set[str]) -> None:
    """Raises TidemillError for a step that takes the words of a category, or that takes a free text as one."""
    for _, step, chosen in part.transformers_:
        taken = {str(part.feature_names_in_[place]) for place in chosen_columns(part, chosen)}
        inner = [] if isinstance(step, str) else [one.estimator for one in steps_of(step)]
        for one in [one for one in steps_of(pipeline) if any(one.estimator is estimator for estimator in inner)]:
            if hasattr(one.estimator, "vocabulary_") and taken & categories:
                raise TidemillError(
                    f"{one.title} takes words, but a text that was not there in training has no words when it is served",
                    mend=WORDS_MEND,
                )
            if takes_texts(one.estimator) and taken & words:
                raise TidemillError(
                    f"{one.title} takes {', '.join(sorted(taken & words))} as a category, and it is declared as words",
                    mend="declare it as Request(name, str), or take its words: TfidfVectorizer()",
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
