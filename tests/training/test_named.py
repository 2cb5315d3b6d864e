"""Inputs are chosen for pipelines that name their columns, too: the others leave the lists of the column transformers."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.training.test_choices import model, quiet, unseen
from tests.training.test_evaluate import INPUTS, examples

from tidemill import Select
from tidemill.errors import TidemillError
from tidemill.training.fitting import fit
from tidemill.training.frames import frame
from tidemill.training.stages.chosen import ChosenPipeline, as_chosen
from tidemill.training.stages.named import DROPPED, without
from tidemill.training.stages.select import choose
from tidemill.training.version import make_version

NAMES = [spec.name for spec in INPUTS]


def columns(*parts: Any, **options: Any) -> ColumnTransformer:
    """A column transformer of these parts."""
    return ColumnTransformer(list(parts), **options)


def numbers(taken: Any) -> tuple[str, Any, Any]:
    """Numbers, scaled."""
    return "numbers", make_pipeline(SimpleImputer(), StandardScaler()), taken


def texts(taken: Any) -> tuple[str, Any, Any]:
    """Texts, a column for each."""
    return "texts", OneHotEncoder(handle_unknown="ignore"), taken


def named() -> Any:
    """A pipeline as people write it."""
    return make_pipeline(columns(numbers(["speed", "load"]), texts(["kind"])), LogisticRegression(max_iter=1000))


def by_hand() -> Any:
    """The same without the input that does not help."""
    return make_pipeline(columns(numbers(["speed"]), texts(["kind"])), LogisticRegression(max_iter=1000))


@pytest.mark.slow
def test_a_dropped_input_leaves_the_lists() -> None:
    """The version answers as the pipeline that names only the chosen ones, and is served like any other."""
    data = examples()
    chosen = choose(model(named), data, Select(rounds=4, least=0.005), quiet, unseen)
    assert chosen.inputs == ["speed", "kind"]
    narrowed = as_chosen(model(named), data.inputs, ChosenPipeline(inputs=chosen.inputs))
    assert fit(narrowed, data).metrics == fit(model(by_hand), data).metrics
    version = make_version(narrowed, data, 0, quiet)
    assert [item.name for item in version.artifact.manifest.inputs] == NAMES
    assert version.artifact.manifest.feature_importance.get("load", 0.0) == 0.0
    without_texts = as_chosen(model(named), data.inputs, ChosenPipeline(inputs=["speed", "load"]))
    assert make_version(without_texts, data, 0, quiet).artifact.manifest.parity.max_abs_diff <= 1e-4


def made_of(pipeline: Any, data: Any) -> Any:
    """What a fitted pipeline's first step gives."""
    rows = frame(data.inputs, data.matrix)
    first = pipeline if isinstance(pipeline, ColumnTransformer | FeatureUnion) else pipeline[0]
    return first.fit(rows).transform(rows)


@pytest.mark.parametrize(
    ("make", "plain"),
    [
        (lambda: columns(numbers(["speed", "load"]), remainder="passthrough"), lambda: columns(numbers(["speed"]), ("r", "passthrough", ["kind"]))),
        (lambda: columns(numbers(make_column_selector(dtype_include=np.number))), lambda: columns(numbers(["speed"]))),
        (lambda: columns(("one", "passthrough", ["load"]), texts(["kind"])), lambda: columns(texts(["kind"]))),
        (lambda: columns(("places", "passthrough", [0, 1]), texts(["kind"])), lambda: columns(("p", "passthrough", ["speed"]), texts(["kind"]))),
        (
            lambda: FeatureUnion([("a", columns(numbers(["speed", "load"]))), ("b", columns(texts(["kind"])))]),
            lambda: columns(numbers(["speed"]), texts(["kind"])),
        ),
    ],
)  # fmt: skip
def test_every_way_to_name_columns(make: Callable[[], Any], plain: Callable[[], Any]) -> None:
    """The rest, a selector by type, a list that becomes empty, places among names, a union: as if the input were not there."""
    data = examples()
    found = without(make(), NAMES, ["load"])
    assert pd.DataFrame(made_of(found, data)).equals(pd.DataFrame(made_of(plain(), data)))
    assert pickle.dumps(found)  # as a stage keeps it


def test_the_names_of_steps_stay() -> None:
    """So do those of their parameters; what is left out has a name of its own."""
    found = without(columns(numbers(["speed"]), texts("kind"), remainder="passthrough"), NAMES, ["kind"])
    assert [(name, taken) for name, _, taken in found.transformers] == [("numbers", ["speed"]), ("texts", []), (DROPPED, ["kind"])]


@pytest.mark.slow
def test_votes_and_calibrations() -> None:
    """Each of their pipelines loses the input."""
    vote = VotingClassifier([("a", named()), ("b", CalibratedClassifierCV(named()))], voting="soft")
    data = examples()
    narrowed = dataclasses.replace(model(lambda: without(vote, NAMES, ["load"])))
    assert fit(narrowed, data).metrics["auc"] > 0.5
    a, b = vote.estimators[0][1], vote.estimators[1][1].estimator
    assert [part[0].transformers[0][2] for part in (a, b)] == [["speed"], ["speed"]]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: columns(numbers(slice("speed", "load")), texts(["kind"])), "step 'numbers' takes its columns by a slice.*; name its columns"),
        (lambda: columns(numbers([True, False, False]), texts(["kind"])), "step 'numbers' takes its columns by a mask"),
    ],
)  # fmt: skip
def test_what_cannot_be_narrowed_is_refused(make: Callable[[], Any], told: str) -> None:
    """Before any round is fitted, by the name of the step."""
    with pytest.raises(TidemillError, match=told):
        choose(model(lambda: make_pipeline(make(), LogisticRegression())), examples(), Select(rounds=2), quiet, unseen)


@pytest.mark.parametrize(
    ("taken", "told"),
    [
        (["speed", "lod"], "names the column 'lod', which is no input of it; did you mean 'load'"),
        ("zzz", "names the column 'zzz', which is no input of it; its inputs are speed, load, kind"),
    ],
)
def test_a_column_that_is_no_input_is_named(taken: Any, told: str) -> None:
    """With the nearest input, else with all of them."""
    with pytest.raises(TidemillError, match=told):
        fit(model(lambda: make_pipeline(columns(("n", SimpleImputer(), taken)), LogisticRegression())), examples())


class Lost(LogisticRegression):  # type: ignore[misc]
    """It answers some rows with no number."""

    def predict_proba(self, rows: Any) -> Any:
        """NaN for every third."""
        found = super().predict_proba(rows)
        found[::3] = np.nan
        return found


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: None, "the function given as pipeline returns None, which cannot be fitted; return a scikit-learn"),
        (lambda: LogisticRegression, "returns <class 'sklearn.*'>?, which cannot be fitted"),
        (lambda: make_pipeline(SimpleImputer(), Lost()), r"step 'lost' \(Lost\) gives no number for 67 of 200 held-out rows; see why"),
    ],
)
def test_what_is_no_pipeline_or_gives_no_numbers(make: Callable[[], Any], told: str) -> None:
    """One line with the model and the mend, not an error of scikit-learn's."""
    with pytest.raises(TidemillError, match=f"model 'big_tip': .*{told}"):
        fit(model(make), examples())


def test_names_in_a_later_part_are_refused() -> None:
    """The data frame does not reach it as it came."""
    late = make_pipeline(StandardScaler(), columns(texts(["kind"])), LogisticRegression())
    with pytest.raises(TidemillError, match="named in a part of it, from which inputs cannot be dropped; put the ColumnTransformer first"):
        without(late, NAMES, ["load"])
