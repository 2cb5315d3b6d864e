"""A pipeline that names its columns gets a data frame, is served as it predicts, and does not care where a column stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from tests.training.test_parity import IMPUTED, INPUTS, MODEL, compared, examples
from threadpoolctl import threadpool_limits

from tidemill.errors import TidemillError
from tidemill.models.frame import frame
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.conversion import to_onnx
from tidemill.training.dataset import TrainingSet
from tidemill.training.fitting import fit
from tidemill.training.frames import names_columns
from tidemill.verify.checks import logged_values

NUMBERS = [spec.name for spec in INPUTS if not spec.is_category]
FILLED = SimpleImputer(strategy="constant", fill_value="none")
HOT = OneHotEncoder(handle_unknown="ignore")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def columns(texts: Any = HOT, numbers: Any = IMPUTED) -> Any:
    """The category and the numbers, chosen by name."""
    return make_column_transformer((texts, ["payment"]), (numbers, NUMBERS))


def linear(texts: Any = HOT) -> Pipeline:
    """A logistic regression over them."""
    return make_pipeline(columns(texts, make_pipeline(IMPUTED, StandardScaler())), LogisticRegression())


def trees(texts: Any) -> Pipeline:
    """Boosted trees over the texts by name and all the rest as it is."""
    return make_pipeline(make_column_transformer((texts, ["payment"]), remainder="passthrough"), HistGradientBoostingClassifier(max_iter=5))


VOTES = VotingClassifier([("a", LogisticRegression()), ("b", RandomForestClassifier(5))], voting="soft")
NAMED: dict[str, Callable[[], Any]] = {
    "missing is a category": linear,
    "missing is filled": lambda: linear(make_pipeline(FILLED, HOT)),
    "missing is the most frequent": lambda: linear(make_pipeline(SimpleImputer(strategy="most_frequent"), HOT)),
    "unknown with a warning": lambda: linear(OneHotEncoder(handle_unknown="warn")),
    "unknown as infrequent": lambda: linear(OneHotEncoder(handle_unknown="infrequent_if_exist")),
    "first category dropped": lambda: linear(OneHotEncoder(handle_unknown="ignore", drop="first")),
    "by type": lambda: make_pipeline(
        make_column_transformer(
            (HOT, make_column_selector(dtype_exclude="number")), (IMPUTED, make_column_selector(dtype_include="number"))
        ),
        LogisticRegression(max_iter=500),
    ),
    "the rest as it is": lambda: trees(OneHotEncoder(handle_unknown="ignore", sparse_output=False)),
    "ordinal": lambda: trees(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)),
    "ordinal, of which much depends": lambda: make_pipeline(
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), ["payment"])
        ),
        LogisticRegression(),
    ),
    "target": lambda: trees(TargetEncoder()),
    "votes": lambda: make_pipeline(columns(), VOTES),
    "calibrated": lambda: make_pipeline(columns(), CalibratedClassifierCV(RandomForestClassifier(5), cv=2)),
    "searched": lambda: GridSearchCV(linear(), {"logisticregression__C": [0.1, 1.0]}, cv=2),
    "nested": lambda: make_pipeline(
        columns(HOT, make_pipeline(make_column_transformer((StandardScaler(), NUMBERS[2:5]), remainder="passthrough"), IMPUTED)),
        LogisticRegression(max_iter=500),
    ),
    "numbers alone": lambda: make_pipeline(make_column_transformer((IMPUTED, NUMBERS[::-1])), LogisticRegression(max_iter=500)),
}


def test_who_gets_a_data_frame() -> None:
    """A pipeline that names a column, or chooses by type; any other gets the matrix, as before."""
    for make in NAMED.values():
        assert names_columns(make())
    for other in (
        LogisticRegression(),
        make_pipeline(IMPUTED, LogisticRegression()),
        make_column_transformer((HOT, [1]), (IMPUTED, slice(2))),
    ):
        assert not names_columns(other)


def test_the_data_frame() -> None:
    """Numbers are float32, texts are texts; what is missing is NaN; the mark stands for a text that was never there."""
    data = examples(missing=0.1)
    inputs = fit(dataclasses.replace(MODEL, pipeline=linear), data).holdout.inputs
    rows = data.matrix[:4].copy()
    place = [spec.name for spec in inputs].index("payment")
    rows[:, place] = [0, 2, np.nan, 3]
    made = frame(inputs, rows)
    assert list(made.columns) == MODEL.input_names
    assert {str(kind) for name, kind in made.dtypes.items() if name != "payment"} == {"float32"}
    assert made["payment"].tolist()[:2] == ["card", "coin"]
    assert made["payment"].isna().tolist() == [False, False, True, False]
    assert made["payment"].tolist()[3] == UNKNOWN_TEXT


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found unknown categories")
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMED)
def test_a_pipeline_by_name_is_served_as_it_predicts(name: str, missing: float) -> None:
    """Beside the pipeline itself on raw texts: known ones, one that was never there, and none."""
    data = examples(missing=missing)
    parity, fitted, _ = compared(NAMED[name], data)
    assert parity.max_abs_diff < 1e-5
    session = onnxruntime.InferenceSession(
        to_onnx(fitted.pipeline, fitted.holdout.inputs, probability=True), providers=["CPUExecutionProvider"]
    )
    rows = data.matrix[:40].copy()
    place = MODEL.input_names.index("payment")
    rows[10:20, place], rows[20:30, place] = np.nan, 3
    raw = frame(INPUTS, np.where(np.arange(rows.shape[1]) == place, np.where(rows == 3, np.nan, rows), rows).astype(np.float32))
    raw["payment"] = [*raw["payment"][:20], *["shells"] * 10, *raw["payment"][30:]]
    found = session.run(None, {"features": rows})[1]
    assert found == pytest.approx(fitted.pipeline.predict_proba(raw), abs=1e-5)


def test_where_a_column_stands_does_not_matter() -> None:
    """Inputs in another order, and one more of them, give the same answers (X06)."""
    data = examples(missing=0.1)
    order = np.random.default_rng(1).permutation(len(INPUTS))
    moved = TrainingSet(data.matrix[:, order], data.labels, data.times_ms, data.subjects, [INPUTS[i] for i in order])
    model = dataclasses.replace(MODEL, pipeline=linear)
    before, after = fit(model, data), fit(model, moved)
    assert after.holdout_output == pytest.approx(before.holdout_output, abs=1e-6)
    more = TrainingSet(
        np.column_stack([data.labels.astype(np.float32), data.matrix]),
        data.labels,
        data.times_ms,
        data.subjects,
        [number_input("leak"), *INPUTS],
    )
    assert fit(model, more).holdout_output == pytest.approx(before.holdout_output, abs=1e-6)


def number_input(name: str) -> Any:
    """A number of the request."""
    return type(INPUTS[0])(name, "number")


REFUSED: dict[str, tuple[Callable[[], Any], str, Callable[[], Any]]] = {
    "texts and numbers together": (
        lambda: make_pipeline(make_column_transformer((HOT, ["payment", "member"]), (IMPUTED, NUMBERS)), LogisticRegression()),
        r"step 'onehotencoder' \(OneHotEncoder\) takes texts and numbers together; give the texts to one transformer",
        lambda: linear(HOT),
    ),
    "words": (
        lambda: make_pipeline(make_column_transformer((TfidfVectorizer(), "payment"), (IMPUTED, NUMBERS)), LogisticRegression()),
        r"step 'columntransformer > tfidfvectorizer' \(TfidfVectorizer\) .*; declare the text as Words\(",
        lambda: linear(HOT),
    ),
    "unknown category": (
        lambda: linear(OneHotEncoder()),
        r"step 'columntransformer > onehotencoder' \(OneHotEncoder\) fails on rows .*; give it handle_unknown='ignore'$",
        lambda: linear(HOT),
    ),
    "unknown ordinal": (
        lambda: trees(OrdinalEncoder()),
        r"\(OrdinalEncoder\) fails on rows .*; give it handle_unknown='use_encoded_value', unknown_value=-1, encoded_missing_value=-2$",
        lambda: trees(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)),
    ),
    "pipelines that vote": (
        lambda: VotingClassifier([("a", linear()), ("b", linear())], voting="soft"),
        r"VotingClassifier holds pipelines that take texts each by itself; take the columns before it: make_pipeline\(make_column_",
        lambda: make_pipeline(columns(), VOTES),
    ),
    "a part without columns": (
        lambda: VotingClassifier([("a", linear()), ("b", HistGradientBoostingClassifier(max_iter=5))], voting="soft"),
        r"cannot be fitted to .* string to float.*; choose its columns before it: make_pipeline\(make_column_transformer",
        lambda: make_pipeline(columns(), VOTES),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_mended(name: str, missing: float) -> None:
    """One line names the step; the pipeline as the line says is taken."""
    pipeline, says, mended = REFUSED[name]
    with pytest.raises(TidemillError, match=says) as caught:
        compared(pipeline, examples(missing=missing))
    assert "\n" not in str(caught.value)
    compared(mended, examples(missing=missing))


def test_verify_reads_the_log() -> None:
    """To the second implementation, a logged text that was never there is no text, whichever way it was logged."""
    view = MODEL.views[0]
    inputs: dict[str, list[str]] = {"zones__last_tip": ["a", UNKNOWN_TEXT]}
    read = [logged_values(view, inputs, [number])["last_tip"] for number in (0.0, 1.0, None)]
    assert read == [(None, "a"), (None, None), (None, None)]
