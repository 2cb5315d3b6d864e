"""What the evaluation says, beside the same computed by scikit-learn or by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tests.demo_state import demo

from tidemill.declarations import Model
from tidemill.declarations.training import Training
from tidemill.errors import DeclarationError
from tidemill.models.artifact import ModelInput, save_artifact
from tidemill.models.inputs import UNKNOWN_TEXT
from tidemill.training.dataset import TrainingSet, taken
from tidemill.training.fitting import fit
from tidemill.training.stages.evaluate import SHUFFLED_ROWS, evaluate, importance, losses
from tidemill.training.stages.evaluation import Evaluation
from tidemill.training.version import make_version
from tidemill_training.champion import FEWEST_ROWS, beside, by_name

INPUTS = [ModelInput("speed", "feature"), ModelInput("load", "feature"), ModelInput("kind", "category", ["a", "b", "c"])]


def boosted() -> Any:
    """Trees that take missing values as they are."""
    return HistGradientBoostingClassifier(max_iter=20, early_stopping=False, random_state=0)


MODEL = dataclasses.replace(demo().models["big_tip"], pipeline=boosted, training=Training(segments=["zone"]))


def examples(count: int = 1000, *, values: bool = False) -> TrainingSet:
    """Labels by the first column, in one kind more often than in others; the second column means nothing."""
    draw = np.random.default_rng(3)
    matrix = np.stack([draw.normal(size=count), draw.normal(size=count), draw.integers(0, 3, count)], axis=1)
    score = matrix[:, 0] + (matrix[:, 2] == 1) + draw.normal(size=count) / 2
    labels = score * 10 if values else (score > 0.5).astype(np.float64)
    zones = pa.array(draw.choice(["north", "south"], count).tolist(), pa.string())
    return TrainingSet(matrix, labels, np.arange(count) * 1000, [f"s{i}" for i in range(count)], INPUTS, given={"zone": zones})


def evaluated(model: Model = MODEL, data: TrainingSet | None = None) -> Evaluation:
    """The evaluation of a fitted model."""
    data = data or examples()
    return evaluate(model, data, fit(model, data), "v1", "digest")


def test_the_curve_and_the_baseline_are_those_of_scikit_learn() -> None:
    """The area below the points is the AUC; the baseline is a dummy's; the loss of each row has scikit-learn's mean."""
    data, found = examples(), evaluated()
    x, y = np.array(found.roc).T
    assert np.trapezoid(y, x) == pytest.approx(found.metrics["auc"], abs=2e-3)
    assert (found.roc[0], found.roc[-1]) == ((0.0, 0.0), (1.0, 1.0))
    dummy = DummyClassifier(strategy="prior").fit(data.values[:800], data.labels[:800])
    said = dummy.predict_proba(data.values[800:])[:, 1]
    assert found.baseline["log_loss"] == pytest.approx(log_loss(data.labels[800:], said), abs=1e-6)
    assert found.baseline["auc"] == 0.5
    assert 0.3 < found.skill < 1
    fitted = fit(MODEL, data)
    assert losses(data.labels[800:], fitted.holdout_output, probability=True).mean() == pytest.approx(found.metrics["log_loss"])


def test_calibration_is_by_tenths() -> None:
    """The tenths hold all rows in order of the output; their labels are the mean labels; ece is the weighted distance."""
    found = evaluated()
    assert sum(one.rows for one in found.bins) == found.held_out_rows == 200
    assert [one.output for one in found.bins] == sorted(one.output for one in found.bins)
    assert sum(one.rows * one.label for one in found.bins) == examples().labels[800:].sum()
    assert found.ece == pytest.approx(sum(abs(one.output - one.label) for one in found.bins) / 10)


def test_what_matters_is_important() -> None:
    """Shuffling an input that tells something costs more than one that tells nothing, and the same seed gives the same."""
    found = evaluated().importance
    by_name = {one.input: one.mean for one in found}
    assert [one.input for one in found][:2] == ["speed", "kind"]
    assert by_name["speed"] > 5 * abs(by_name["load"])
    fitted = fit(MODEL, examples())
    assert importance(fitted) == importance(fitted) == found
    assert importance(fitted, seed=1) != found


def test_importance_is_of_some_rows() -> None:
    """Many held-out rows cost no more than some."""
    data = examples(SHUFFLED_ROWS * 12)
    assert importance(fit(MODEL, data))[0].input == "speed"


def test_segments_are_of_their_rows() -> None:
    """A field that requests give, though no input: each value with the metrics of its own rows; without a declaration the texts among the
    inputs."""
    data, found = examples(), evaluated()
    fitted = fit(MODEL, data)
    zones = np.array(data.given["zone"].to_pylist())[800:]
    assert {(one.field, one.value, one.rows) for one in found.segments} == {
        ("zone", z, int((zones == z).sum())) for z in ("north", "south")
    }
    north = next(one for one in found.segments if one.value == "north")
    assert north.metrics["auc"] == pytest.approx(
        roc_auc_score(data.labels[800:][zones == "north"], fitted.holdout_output[zones == "north"])
    )
    undeclared = evaluated(dataclasses.replace(MODEL, training=Training()))
    assert {one.field for one in undeclared.segments} == {"kind"}


def test_a_number_is_cut_into_quarters() -> None:
    """Each row is in one of them, or among those without a value; few rows make no segment."""
    data = examples()
    data = dataclasses.replace(data, given={"distance": pa.array([None if i % 4 == 0 else float(i) for i in range(1000)], pa.float64())})
    found = evaluated(dataclasses.replace(MODEL, training=Training(segments=["distance"])), data).segments
    assert [one.rows for one in found] == [38, 37, 37, 38, 50]
    assert found[-1].value == "missing"
    assert found[0].value.startswith("up to ")


def test_a_regressor_is_measured_by_its_error() -> None:
    """A value has tenths, importance, a learning curve and a baseline, and no ROC."""
    model = dataclasses.replace(MODEL, pipeline=lambda: HistGradientBoostingRegressor(max_iter=20, random_state=0))
    found = evaluated(model, examples(values=True))
    assert (found.loss, found.roc) == ("mae", [])
    assert found.importance[0].input == "speed"
    assert found.skill > 0.4


def test_several_classes() -> None:
    """Log loss and accuracy beside the shares of the classes, calibration of the class that is answered, importance and segments."""
    data = examples(2000)
    places = np.clip(np.round(data.values[:, 0]), -1, 1) + 1
    texts = dataclasses.replace(data, labels=np.array([2.0, 0.0, 1.0])[places.astype(int)], texts=("mid", "up", "down"))
    found = evaluated(data=texts)
    assert (found.output, found.loss, found.roc) == ("probabilities", "log_loss", [])
    assert found.metrics["accuracy"] > 0.9
    assert found.baseline["accuracy"] < 0.6
    shares = np.unique(texts.labels[:1600], return_counts=True)[1] / 1600
    said = log_loss(texts.labels[1600:], np.tile(shares, (400, 1)), labels=[0, 1, 2])
    assert found.baseline["log_loss"] == pytest.approx(said, abs=1e-6)
    assert sum(one.rows * one.label for one in found.bins) / 400 == pytest.approx(found.metrics["accuracy"])
    assert (found.importance[0].input, found.learning[-1].loss) == ("speed", found.metrics["log_loss"])
    assert found.segments[0].metrics["accuracy"] > 0.8


def test_more_rows_are_learnt_from() -> None:
    """The curve goes from few rows to all; its last point is the metric itself."""
    found = evaluated()
    assert [one.rows for one in found.learning] == [100, 200, 400, 800]
    assert found.learning[-1].loss == found.metrics["log_loss"] < found.learning[0].loss


def test_a_part_that_cannot_be_fitted_is_left_out() -> None:
    """A few rows of one class stop no evaluation."""
    data = examples(200)
    data = dataclasses.replace(data, labels=(np.arange(200) % 21 == 1).astype(np.float64))
    found = evaluated(dataclasses.replace(MODEL, pipeline=_picky), data)
    assert [one.rows for one in found.learning] == [160]
    one_label = dataclasses.replace(data, given={"zone": pa.array(["rare" if label else "usual" for label in data.labels], pa.string())})
    segments = evaluated(dataclasses.replace(MODEL, pipeline=_picky), one_label).segments
    assert [(one.value, one.metrics["positive_share"], set(one.metrics)) for one in segments] == [
        ("usual", 0.0, {"log_loss", "positive_share"})
    ]


class _Picky(HistGradientBoostingClassifier):  # type: ignore[misc]
    """It takes no small data."""

    def fit(self, rows: Any, labels: Any) -> Any:
        """Fits. Raises ValueError for few rows."""
        if len(rows) < 100:
            raise ValueError("too few")
        return super().fit(rows, labels)


def _picky() -> Any:
    return make_pipeline(FunctionTransformer(), _Picky(max_iter=2))


def test_a_segment_that_is_no_field() -> None:
    """It is refused where it is declared, with the name that was meant."""
    with pytest.raises(DeclarationError, match=r"segment 'zonne' is no field of requests or input; did you mean zone\?"):
        dataclasses.replace(MODEL, training=Training(segments=["zonne"]))


def stored(root: Path, data: TrainingSet, created_ms: int) -> str:
    """A version that was trained on this data, in the offline store."""
    made = make_version(MODEL, data, created_ms, lambda _: None)
    save_artifact(str(root), *made.artifact)
    return made.artifact.manifest.version


def test_the_champion_beside_it(tmp_path: Path) -> None:
    """On the rows after its training alone; the differences are those of the losses on these rows."""
    data = examples(2000)
    old = taken(data, np.arange(300))
    swapped = dataclasses.replace(old, labels=1 - old.labels)  # a champion that is worse
    version = stored(tmp_path, swapped, 5)
    fitted = fit(MODEL, data)
    found = beside(str(tmp_path), "big_tip", version, fitted)
    assert (found.rows, found.said) == (400, "")
    loss = next(one for one in found.losses if one.name == "log_loss")
    assert loss.new == pytest.approx(fitted.metrics["log_loss"], rel=1e-4)
    assert loss.difference == pytest.approx(loss.new - loss.champion)
    assert loss.low < loss.difference < loss.high < 0


def test_a_champion_of_several_classes(tmp_path: Path) -> None:
    """It is compared by log loss, Brier score and wrong answers; one that knows other classes is not."""
    data = dataclasses.replace(examples(2000), labels=np.clip(np.round(examples(2000).values[:, 0]), -1, 1) + 1)
    version, fitted = stored(tmp_path, taken(data, np.arange(300)), 5), fit(MODEL, data)
    found = beside(str(tmp_path), "big_tip", version, fitted)
    assert [one.name for one in found.losses] == ["log_loss", "brier", "error_rate"]
    assert found.losses[0].new == pytest.approx(fitted.metrics["log_loss"], rel=1e-4)
    fewer = dataclasses.replace(data, labels=np.where(data.labels == 2, 3, data.labels))
    assert beside(str(tmp_path), "big_tip", version, fit(MODEL, fewer)).said == "the champion knows other classes: 0, 1, 2"


def test_a_champion_that_has_seen_the_rows(tmp_path: Path) -> None:
    """It is not compared on what it learnt; neither is one that is gone, or reads other inputs. Each says so."""
    data = examples()
    fitted = fit(MODEL, data)
    version = stored(tmp_path, data, 5)
    assert (
        beside(str(tmp_path), "big_tip", version, fitted).said
        == f"the champion has not seen 0 of the held-out rows, and {FEWEST_ROWS} are needed to compare"
    )
    assert "cannot be read" in beside(str(tmp_path), "big_tip", "gone", fitted).said
    fewer = dataclasses.replace(data, values=data.values[:, :2], inputs=INPUTS[:2])
    assert beside(str(tmp_path), "big_tip", version, fit(MODEL, fewer)).said == "the champion reads what the new version does not: kind"
    values = dataclasses.replace(MODEL, pipeline=lambda: HistGradientBoostingRegressor(max_iter=2))
    assert beside(str(tmp_path), "big_tip", version, fit(values, data)).said == "the champion gives a probability, the new version a value"


def test_texts_are_found_by_their_names() -> None:
    """Another version has other numbers for texts: known ones are translated, others are unknown to it, or missing."""
    rows = np.array([[0, 5], [1, 6], [2, 7], [np.nan, 8]], np.float32)
    given = [ModelInput("kind", "category", ["a", "b", "c"]), ModelInput("n", "number")]
    wanted = [ModelInput("n", "number"), ModelInput("kind", "category", ["b", "c", UNKNOWN_TEXT])]
    assert by_name(rows, given, wanted).tolist()[:3] == [[5, 2], [6, 0], [7, 1]]
    wanted = [ModelInput("kind", "category", ["b"])]
    assert np.isnan(by_name(rows, given, wanted)[:, 0]).tolist() == [True, False, True, True]
