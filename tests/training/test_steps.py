"""The steps of a pipeline by name, and the columns that a transformer chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from tidemill.training.steps import chosen_columns, first_that_fails, last_step, steps_of

FRAME = pd.DataFrame(np.arange(24.0).reshape(6, 4), columns=list("abcd"))
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        (["d", "a"], [3, 0]), ([-1, 0], [3, 0]), (slice(1, 3), [1, 2]), (slice("b", "d"), [1, 2, 3]), (slice(None), [0, 1, 2, 3]),
        ([True, False, True, False], [0, 2]), (np.array([False, True, False, False]), [1]), ([], []), (make_column_selector("[ac]"), [0, 2]),
    ],
)  # fmt: skip
def test_what_a_transformer_chooses(columns: Any, places: list[int]) -> None:
    """The places are those of which scikit-learn transforms the values."""
    whole = ColumnTransformer([("one", "passthrough", columns), ("two", "drop", [0])]).fit(FRAME)
    assert chosen_columns(whole, whole.transformers_[0][2]) == places
    assert np.array_equal(whole.transform(FRAME), FRAME.to_numpy()[:, places])


def test_what_is_left_over() -> None:
    """The rest is chosen too."""
    whole = make_column_transformer((StandardScaler(), ["c"]), remainder=SimpleImputer()).fit(FRAME)
    assert [chosen_columns(whole, columns) for _, _, columns in whole.transformers_] == [[2], [0, 1, 3]]


def test_every_step_gets_the_rows_that_scikit_learn_gives_it() -> None:
    """Paths name pipelines, transformers and unions; a search is its best pipeline; the last step sees what all others made."""
    columns = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), ["a", "b"]), (MinMaxScaler(), ["d"]))
    pipeline = make_pipeline(columns, make_union(StandardScaler(), MinMaxScaler()), "passthrough", LogisticRegression())
    search = GridSearchCV(pipeline, {"logisticregression__C": [1.0]}, cv=2).fit(FRAME, LABELS)
    steps = list(steps_of(search, FRAME))
    assert [" > ".join(step.path) for step in steps] == [
        "columntransformer > pipeline > simpleimputer", "columntransformer > pipeline > standardscaler", "columntransformer > minmaxscaler",
        "featureunion > standardscaler", "featureunion > minmaxscaler", "logisticregression",
    ]  # fmt: skip
    last = steps[-1]
    assert np.array_equal(last.estimator.predict_proba(last.rows), search.predict_proba(FRAME))
    assert last_step(search).title == last.title == "step 'logisticregression' (LogisticRegression)"
    assert last_step(LogisticRegression()).title == "LogisticRegression"


def test_the_first_that_fails() -> None:
    """The step whose attempt raises; a step that cannot make the rows of the next one is told too; None if all go well."""
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression()).fit(FRAME.to_numpy(), LABELS)

    def attempt(step: Any) -> None:
        if isinstance(step.estimator, MinMaxScaler):
            raise ValueError("no")

    failed = first_that_fails(pipeline, FRAME.to_numpy(), attempt)
    assert failed is not None
    assert (failed.step.path, str(failed.error)) == (("minmaxscaler",), "no")
    assert first_that_fails(pipeline, FRAME.to_numpy(), lambda step: None) is None
    broken = first_that_fails(pipeline, FRAME.to_numpy()[:, :2], lambda step: None)
    assert broken is not None
    assert broken.step.path == ("standardscaler",)
