"""Drift of a model of several classes: which class is answered, how often it is right, and classes that it never saw."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.drift.samples import manifest

from tidemill import Event, Model, Outcome, Request
from tidemill.declarations.project import Project
from tidemill.errors import ArtifactError
from tidemill.models.artifact import Manifest, save_artifact
from tidemill.records import PredictionRecord, ResultRecord, Watched
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.stats.histograms import count, places_ruler
from tidemill.stats.several import scores
from tidemill_drift.compare import Finding
from tidemill_drift.detector import Detector, _add_result
from tidemill_drift.episodes import JudgedWindow, alert_of
from tidemill_drift.monitor import PredictionRow, ResultRow, compare_predictions, compare_results, level
from tidemill_drift.settings import WindowSettings
from tidemill_drift.windows import Windows

CLASSES = ["on time", "late", "cancelled"]
SHARES = np.array([0.6, 0.3, 0.1])
BUDGET = 0.01


def world(seed: int, rows: int, shares: np.ndarray = SHARES, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and the places of classes that follow them exactly where `noise` is 1."""
    draw = np.random.default_rng(seed)
    given_ = np.array([draw.dirichlet(8 * shares) for _ in range(rows)])
    true = given_**noise / (given_**noise).sum(axis=1, keepdims=True)
    return given_, np.array([draw.choice(3, p=row) for row in true])


def version() -> Manifest:
    """A version whose reference is a holdout of that world."""
    given_, places = world(1, 4000)
    model = manifest({"size": np.random.default_rng(0).normal(size=4000)}, np.zeros(4000), "probabilities", **scores(places, given_))
    answered = count(places_ruler(3), given_.argmax(axis=1).astype(np.float64))
    return msgspec.structs.replace(model, classes=CLASSES, reference=model.reference | {"prediction": answered})


def results(given_: np.ndarray, places: np.ndarray) -> list[ResultRow]:
    """Joined results."""
    return [
        ResultRow(float(row.max()), CLASSES[place], dict(zip(CLASSES, row.tolist(), strict=True)))
        for row, place in zip(given_, places, strict=True)
    ]


def findings(rows: list[ResultRow]) -> dict[str, Finding]:
    """All comparisons, by subject."""
    return {one.subject: one for one in compare_results(version(), rows, BUDGET)}


def test_a_stationary_window_raises_nothing() -> None:
    """Performance is compared by accuracy, log loss, and how often each class is."""
    found = findings(results(*world(2, 2000)))
    assert list(found) == ["unknown classes", "accuracy", "log_loss", *(f"calibration of {name}" for name in CLASSES)]
    assert not any(one.drifted for one in found.values())


def test_worse_answers_are_told() -> None:
    """Outcomes that no longer follow the probabilities."""
    given_, places = world(3, 2000)
    found = findings(results(given_, np.random.default_rng(1).permutation(places)))
    assert {name for name, one in found.items() if one.drifted} == {"accuracy", "log_loss"}
    alert = alert_of(JudgedWindow("how", "v1", 0, 1, 2000), found["accuracy"], "opened")
    assert alert.message.startswith("how: performance, accuracy has moved: accuracy 0.")


def test_a_class_that_is_more_frequent_is_named() -> None:
    """More cancellations than the model says."""
    given_, places = world(4, 2000)
    places[:300] = 2
    found = findings(results(given_, places))
    assert found["calibration of cancelled"].drifted
    alert = alert_of(JudgedWindow("how", "v1", 0, 1, 2000), found["calibration of cancelled"], "opened")
    assert "observed less predicted share of cancelled" in alert.message


@pytest.mark.parametrize(("diverted", "drifted"), [(0, False), (10, False), (100, True)])
def test_classes_that_the_model_never_saw(diverted: int, drifted: bool) -> None:
    """They are named, whatever the others do; they count as wrong answers, and for nothing else."""
    given_, places = world(5, 2000)
    rows = results(given_, places)
    rows[:diverted] = [row._replace(outcome="diverted") for row in rows[:diverted]]
    found = findings(rows)
    one = found["unknown classes"]
    assert (one.drifted, one.calm, one.current, one.reference) == (drifted, not diverted, diverted / 2000, 0.0)
    assert f"share of {'diverted' if diverted else 'any class'}, which was not there in training," in one.what
    right = [row.outcome == max(row.probabilities, key=row.probabilities.__getitem__) for row in rows]
    assert found["accuracy"].current == pytest.approx(np.mean(right))
    assert found["log_loss"].current == pytest.approx(scores(places[diverted:], given_[diverted:])["log_loss"])


def test_numbers_are_classes_by_their_names() -> None:
    """An outcome that is the number 2 is the class "2"."""
    rows = [ResultRow(1.0, 2.0, {"1": 0.0, "2": 1.0})] * 250
    named = msgspec.structs.replace(version(), classes=["1", "2"])
    found = {one.subject: one for one in compare_results(named, rows, BUDGET)}
    assert found["unknown classes"].current == 0.0
    assert found["accuracy"].current == 1.0


def test_the_answered_class_drifts_by_its_name() -> None:
    """An alert names the class whose share has changed most."""
    given_, _ = world(6, 2000)
    moved, _ = world(7, 2000, np.array([0.2, 0.7, 0.1]))
    for answers, drifted in ((given_, False), (moved, True)):
        rows = [PredictionRow(np.zeros(1, np.float32), float(row.max()), CLASSES[row.argmax()]) for row in answers]
        (found,) = [one for one in compare_predictions(version(), rows, BUDGET) if one.kind == "prediction_drift"]
        assert found.drifted == drifted
        assert found.what in {f"share of {name}" for name in CLASSES} | {"share of late and cancelled"}
    assert found.what == "share of on time"


@pytest.mark.slow
@given(st.integers(2, 100))
def test_the_budget_is_shared_by_all_comparisons(classes: int) -> None:
    """Two for each input, one for the answers, three for performance, and one for each class."""
    made = msgspec.structs.replace(version(), classes=[str(i) for i in range(classes)])
    assert level(made, BUDGET) == pytest.approx(BUDGET / (2 * 1 + 1 + 3 + classes))


def test_text_outcomes_of_a_version_that_knew_numbers() -> None:
    """A version from before the outcome became a text is not judged by texts, and why is said."""
    old = manifest({"size": np.zeros(10)}, np.zeros(10), auc=0.5, auc_error=0.1)
    with pytest.raises(
        ArtifactError,
        match="300 of 300 outcomes are texts, and late v1 answers with a probability; make a new version, by the command that `tidemill models list late` shows",
    ):
        list(compare_results(old, [ResultRow(0.5, "late")] * 300, BUDGET))


def test_the_detector_judges_records_of_classes(tmp_path: Path) -> None:
    """From logged predictions and results to findings, by the manifest in the offline store."""
    asked, done = Event("asked", {"at": int, "id": str, "size": float}, "at"), Event("done", {"at": int, "id": str, "how": str}, "at")
    late = Model("late", asked, "at", "id", [Request("size")], Outcome(done, "how", "id", within="6h"), lambda: None)
    project = Project("x", {"asked": asked, "done": done}, {}, {"late": late})
    onnx = b"not asked for"
    save_artifact(str(tmp_path), msgspec.structs.replace(version(), onnx_sha256=hashlib.sha256(onnx).hexdigest()), onnx)
    detector = Detector(
        project,
        KafkaSettings(bootstrap_servers="unused"),
        str(tmp_path),
        WindowSettings(window="1s", grace="1s", budget=BUDGET),
        HealthBoard("kafka"),
    )
    given_, places = world(8, 400, np.array([0.2, 0.7, 0.1]))
    predictions, joined = Windows[PredictionRow](1000, 0), Windows[ResultRow](1000, 0)
    for i, (row, place) in enumerate(zip(given_, places, strict=True)):
        named = dict(zip(CLASSES, row.tolist(), strict=True))
        outcome = "diverted" if i % 4 == 0 else CLASSES[place]
        detector._add_prediction(
            predictions, PredictionRecord(f"p{i}", "late", "v1", i, i, [0.1], row.max(), "s", probabilities=named), (0, i)
        )
        _add_result(joined, ResultRecord(i, f"p{i}", "late", "v1", "s", i, row.max(), "joined", i, outcome, named), (0, i))
    whats: list[tuple[Any, Watched, set[str]]] = [
        (predictions, "inputs", {"prediction"}),
        (joined, "outcomes", {"unknown classes", "accuracy"}),
    ]
    for windows, what, drifted in whats:
        windows.tick(0, 5000)
        (closed,) = windows.complete(set())
        found = detector._judge.judge(what, closed)
        assert drifted <= {finding.subject for finding in found.findings if finding.drifted}
        assert found.judgement is not None
        assert (found.judgement.state, found.judgement.rows, found.judgement.comparisons) == ("judged", 400, len(found.findings))
