"""From a training set to a model: holdout by time, and fitting."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import is_classifier
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error

from tidemill.declarations import Model
from tidemill.declarations.models import no_pipeline
from tidemill.errors import TidemillError
from tidemill.models.artifact import Output
from tidemill.stats.roc import auc_with_error
from tidemill.stats.several import scores
from tidemill.training.blame import failing_step
from tidemill.training.classes import check_classes, in_classes
from tidemill.training.dataset import Floats, TrainingSet
from tidemill.training.frames import given, names_columns, with_unknown
from tidemill.training.given_contents import with_strange
from tidemill.training.mends import DICT_MEND, fit_mend, probability_mend, rows_mend
from tidemill.training.one_by_one import OneByOne, made_pipeline, told_inputs
from tidemill.training.stages.named import unknown_columns
from tidemill.training.steps import Step, fails_to_fit, last_step

HOLDOUT = 0.2
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Fitted:
    """A pipeline fitted on all examples; whether it gives probabilities; the holdout, with metrics and outputs of a pipeline fitted
    without it; of a value, the mean and the standard deviation of the labels, by which differences are judged (see `Parity`). `classes`: of
    a model of several, whose places are the labels and the columns of the outputs; `first`: the pipeline fitted without the holdout."""

    pipeline: Any
    probability: bool
    metrics: dict[str, float]
    holdout: TrainingSet
    holdout_output: Floats
    center: float = 0.0
    scale: float = 1.0
    classes: list[str] = field(default_factory=list)
    first: Any = None

    def given(self, rows: Floats) -> Any:
        """Rows of a matrix as the pipeline gets them."""
        return given(self.pipeline, self.holdout.inputs, rows)

    @property
    def output(self) -> Output:
        """The kind of output: a probability, a value, or the probabilities of several classes."""
        return "probabilities" if self.classes else "probability" if self.probability else "value"


def fit(model: Model, examples: TrainingSet, cuts: Sequence[int] = ()) -> Fitted:
    """Fits on the first rows for the metrics, then on all for the model. `cuts`: the first row that is held out, and the rows from which on
    the others are answered by a pipeline fitted on all before (none: the last fifth is held out).

    Raises TidemillError for unusable labels or columns.
    """
    if _names_columns(model):
        examples = with_unknown(examples)
    examples = with_strange(examples)
    probability = is_classifier_of(model)
    _check_count(model, examples)
    examples, classes = in_classes(model, examples, classifier=probability)
    cuts = list(cuts) or [int(len(examples) * (1 - HOLDOUT))]
    before, after = _rows(examples, slice(None, cuts[0])), _rows(examples, slice(cuts[0], None))
    _check_labels(model, before, after, classes, probability=probability)
    first = fitted_on(model, before)
    output = _held_out(model, examples, cuts, first, probability=probability, several=bool(classes))
    metrics = score(after.labels, output, probability=probability) | own_metrics(model, after.labels, output)
    metrics["examples"] = float(len(examples))
    center, scale = (0.0, 1.0) if probability else _scale(examples.labels)
    return Fitted(fitted_on(model, examples), probability, metrics, after, output, center, scale, classes=classes, first=first)


def _held_out(model: Model, examples: TrainingSet, cuts: Sequence[int], first: Any, *, probability: bool, several: bool) -> Floats:
    """What is answered for the held-out rows. `first`: the pipeline fitted on those before the first cut."""
    found = list[Floats]()
    for start, end in pairwise([*cuts, len(examples)]):
        made = first if start == cuts[0] else fitted_on(model, _rows(examples, slice(None, start)))
        rows = given(made, examples.inputs, examples.matrix[start:end])
        found.append(answered(model, made, rows, "held out", probability=probability, several=several))
    output = np.concatenate(found)
    if lost := int((~np.isfinite(output.reshape(len(output), -1))).any(axis=1).sum()):
        raise TidemillError(
            f"model {model.name!r}: {last_step(first).title} gives no number for {lost:,} of {len(output):,} held-out rows",
            mend="see why: an estimator that overflows, or that passes on missing values, needs scaled numbers, or an imputer before it",
        )
    return output


def own_metrics(model: Model, labels: Any, output: Floats) -> dict[str, float]:
    """The metrics that a project declares. Raises TidemillError for one that fails or gives no number."""
    found = dict[str, float]()
    for name, metric in model.training.metrics.items():
        try:
            found[name] = float(metric(np.asarray(labels), np.asarray(output, np.float64)))
        except Exception as error:  # the project's own code
            raise TidemillError(
                f"model {model.name!r}: metric {name!r} fails: {type(error).__name__}: {error}",
                mend="give a function of labels and outputs, two arrays, that returns a number",
            ) from error
        if not np.isfinite(found[name]):
            raise TidemillError(
                f"model {model.name!r}: metric {name!r} gives {found[name]}", mend="let it give a number for any held-out rows"
            )
    return found


def _scale(labels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the labels; the deviation of labels that are all equal is taken as their size."""
    center, deviation = float(np.mean(labels)), float(np.std(labels))
    return center, deviation or abs(center) or 1.0


def answered(model: Model, pipeline: Any, rows: Any, what: str, *, probability: bool, several: bool = False) -> Floats:
    """`outputs`, for rows as the pipeline gets them. Raises TidemillError, which names the step that fails, and the rows by `what`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that were not there in training: rows are made for that
            return outputs(pipeline, rows, probability=probability, several=several)
    except Exception as error:  # raised by the project's own code, or by scikit-learn for a row
        failed = failing_step(pipeline, rows)
        step, reason = (failed.step, failed.error) if failed else (Step((), pipeline), error)
        raise TidemillError(
            f"model {model.name!r}: {step.title} fails on rows {what}, which requests will bring: "
            f"{type(reason).__name__}: {str(reason).strip().partition(chr(10))[0][:300]}",
            mend=rows_mend(step, reason),
        ) from error


def _names_columns(model: Model) -> bool:
    return names_columns(_made(model))


def is_classifier_of(model: Model) -> bool:
    """Whether a model's pipeline is a classifier. Raises TidemillError when it cannot be made."""
    return bool(is_classifier(_made(model)))


def check_pipeline(model: Model) -> None:
    """Raises TidemillError for a model without a pipeline, of which files are imported."""
    if model.pipeline is no_pipeline:
        raise TidemillError(
            f"model {model.name!r} has no pipeline to train",
            mend=f"give it one, or import a file: {model.making}",
        )


def _made(model: Model) -> Any:
    check_pipeline(model)
    mend = "return a scikit-learn classifier or regressor from the function given as pipeline"
    try:
        made = made_pipeline(model)
    except TidemillError:
        raise
    except Exception as error:  # the project's own code
        raise TidemillError(f"model {model.name!r}: its pipeline cannot be made: {type(error).__name__}: {error}", mend=mend) from error
    if isinstance(made, type) or not all(hasattr(type(made), name) for name in ("fit", "predict")):
        raise TidemillError(f"model {model.name!r}: the function given as pipeline returns {made!r:.60}, which cannot be fitted", mend=mend)
    return made


def _check_count(model: Model, examples: TrainingSet) -> None:
    if len(examples) < FEWEST_ROWS:
        raise TidemillError(
            f"model {model.name!r}: {len(examples)} examples are too few to fit and to hold some out; {FEWEST_ROWS} are the least",
            mend="collect more outcomes",
        )


def _check_labels(model: Model, before: TrainingSet, after: TrainingSet, classes: list[str], *, probability: bool) -> None:
    if classes:
        check_classes(model, classes, before, after)
    elif probability and any(
        min(np.sum(part.labels == 0.0), np.sum(part.labels == 1.0)) < 2 for part in (before, after)
    ):  # an AUC needs two of each
        raise TidemillError(
            f"model {model.name!r}: {len(before) + len(after)} examples do not show both outcomes twice before and after the holdout's start",
            mend="collect more outcomes, or check the outcome's condition",
        )


def fitted_on(model: Model, examples: TrainingSet) -> Any:
    """A new pipeline, fitted. An error names the step, and the columns without any value: few estimators say that these are the cause."""
    try:
        made = told_inputs(made_pipeline(model), examples)
        labels = examples.labels.astype(np.int64) if is_classifier(made) else examples.labels  # classes are 0 and 1, not 0.0 and 1.0
        made.fit(given(made, examples.inputs, examples.matrix), labels, **sample_weight(model, made, examples))
    except TidemillError:
        raise
    except Exception as error:  # raised by the project's own code, or by scikit-learn for its data
        raise _unfitted(model, examples, error) from error
    if is_classifier(made) and not hasattr(made, "predict_proba"):
        step = last_step(made)
        raise TidemillError(f"model {model.name!r}: {step.title} gives no probabilities", mend=probability_mend(step))
    return made


def sample_weight(model: Model, pipeline: Any, examples: TrainingSet) -> dict[str, Any]:
    """The rows' weights by the name under which the pipeline gives them to its last step; nothing without. Raises TidemillError."""
    name = model.training.weights
    if name is None:
        return {}
    weights = np.asarray(examples.column(name).cast("float64").to_numpy(zero_copy_only=False), np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        wrong = int((~np.isfinite(weights) | (weights < 0)).sum())
        raise TidemillError(
            f"model {model.name!r}: {wrong:,} rows have no weight {name!r}, or a negative one", mend="give weights of 0 and more, not all 0"
        )
    return {"__".join((*last_step(pipeline).path, "sample_weight")): weights}


def _unfitted(model: Model, examples: TrainingSet, error: Exception) -> TidemillError:
    empty = [spec.name for i, spec in enumerate(examples.inputs) if np.isnan(examples.matrix[:, i]).all()]
    pipeline = told_inputs(made_pipeline(model), examples)
    if unknown := unknown_columns(pipeline, names := [spec.name for spec in examples.inputs]):
        near = get_close_matches(unknown[0], names, 1)
        return TidemillError(
            f"model {model.name!r}: its pipeline names the column {unknown[0]!r}, which is no input of it",
            mend=f"did you mean {near[0]!r}?" if near else f"its inputs are {', '.join(names)}",
        )
    failed = fails_to_fit(pipeline, given(pipeline, examples.inputs, examples.matrix), examples.labels, error)
    told = str(failed.error).strip().partition("\n")[0][:300]
    reason = f"model {model.name!r}: {failed.step.title} cannot be fitted to {len(examples)} rows: {type(failed.error).__name__}: {told}"
    if empty:
        return TidemillError(
            f"{reason} (no row has a value of {', '.join(empty)})",
            mend="see that their events arrive, and that they became known before the requests (history is published with recordedtime); "
            "else remove these inputs, or begin with SimpleImputer(keep_empty_features=True)",
        )
    return TidemillError(reason, mend=DICT_MEND if isinstance(pipeline, OneByOne) else fit_mend(failed.step, failed.error))


def outputs(pipeline: Any, matrix: Any, *, probability: bool, several: bool = False) -> Floats:
    """The model's output for each row: the probability of the outcome, or its value; of several classes a column for each."""
    if several:
        return np.asarray(pipeline.predict_proba(matrix), dtype=np.float32)
    raw = pipeline.predict_proba(matrix)[:, 1] if probability else pipeline.predict(matrix)
    return np.asarray(raw, dtype=np.float32)


def score(labels: Any, output: Floats, *, probability: bool) -> dict[str, float]:
    """Quality on held-out rows. For a probability: auc with its error, log_loss, brier. For a value: mae with its standard error, rmse. For
    several classes: see `stats.several.scores`."""
    if output.ndim > 1:
        return scores(np.asarray(labels).astype(np.int64), output.astype(np.float64))
    if probability:
        auc, error = auc_with_error(np.asarray(labels), output)
        clipped = np.clip(output.astype(np.float64), 1e-7, 1 - 1e-7)
        return {
            "auc": auc,
            "auc_error": error,
            "log_loss": float(log_loss(labels, clipped)),
            "brier": float(brier_score_loss(labels, clipped)),
            "positive_share": float(np.mean(labels)),
        }
    mae, rmse = float(mean_absolute_error(labels, output)), float(mean_squared_error(labels, output) ** 0.5)
    return {"mae": mae, "mae_error": (max(rmse**2 - mae**2, 0.0) / len(output)) ** 0.5, "rmse": rmse}


def _rows(examples: TrainingSet, part: slice) -> TrainingSet:
    places = np.arange(len(examples))[part]
    given = {name: column.slice(int(places[0]) if len(places) else 0, len(places)) for name, column in examples.given.items()}
    values, labels = examples.matrix[part], examples.labels[part]
    return replace(examples, values=values, labels=labels, times_ms=examples.times_ms[part], subjects=examples.subjects[part], given=given)
