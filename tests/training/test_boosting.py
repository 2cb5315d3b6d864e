"""LightGBM, XGBoost and CatBoost (where it is installed) are served as they predict, with missing values, for classes, amounts and quantiles."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.training.test_parity import IMPUTED, compared, examples
from threadpoolctl import threadpool_limits

from tidemill.errors import TidemillError
from tidemill.training import mends
from tidemill.training.steps import Step

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries themselves
MADE: dict[str, dict[str, Any]] = {
    "lightgbm": {"n_estimators": 10, "verbose": -1, "n_jobs": 1},
    "xgboost": {"n_estimators": 10, "n_jobs": 1},
    "catboost": {"iterations": 10, "thread_count": 1, "verbose": 0, "allow_writing_files": False},
}
AMOUNTS = [
    ("lightgbm", {}), ("lightgbm", {"objective": "quantile", "alpha": 0.9}), ("lightgbm", {"objective": "gamma"}),
    ("xgboost", {}), ("xgboost", {"objective": "reg:quantileerror", "quantile_alpha": 0.9}), ("xgboost", {"objective": "reg:gamma"}),
    ("catboost", {}), ("catboost", {"loss_function": "Quantile:alpha=0.9"}),
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait by spinning make small models slow on a busy machine."""
    with threadpool_limits(1):
        yield


def boosted(library: str, kind: str, **options: Any) -> Any:
    """An estimator of a library; the test is skipped where it is not installed."""
    pytest.importorskip("onnxmltools")
    name = {"lightgbm": "LGBM", "xgboost": "XGB", "catboost": "CatBoost"}[library] + kind
    return getattr(pytest.importorskip(library), name)(**MADE[library], **options)


@pytest.mark.parametrize("missing", [0.0, 0.1])
@pytest.mark.parametrize("library", MADE)
def test_a_classifier(library: str, missing: float) -> None:
    """Alone, with missing values as they are, and after other steps."""
    data = examples(missing=missing)
    alone, _, _ = compared(lambda: boosted(library, "Classifier"), data)
    scaled, _, _ = compared(lambda: make_pipeline(IMPUTED, StandardScaler(), boosted(library, "Classifier")), data)
    assert max(alone.max_abs_diff, scaled.max_abs_diff) < 1e-6


@pytest.mark.parametrize(("library", "options"), AMOUNTS)
def test_an_amount(library: str, options: dict[str, Any]) -> None:
    """Amounts, their quantiles, and losses whose answers are exponentials."""
    data = examples(missing=0.1)
    data = dataclasses.replace(data, labels=np.exp(np.nan_to_num(data.matrix[:, 0]) + 5).astype(np.float64))
    parity, fitted, _ = compared(lambda: boosted(library, "Regressor", **options), data)
    assert np.ptp(fitted.holdout_output) > 10
    assert parity.max_abs_diff < 1e-5 * parity.scale


@pytest.mark.slow
def test_a_calibrated_one_is_refused() -> None:
    """skl2onnx calibrates a foreign classifier wrongly; without the calibration it is taken."""
    with pytest.raises(TidemillError, match=r"first in CalibratedClassifierCV; leave the calibration out"):
        compared(lambda: CalibratedClassifierCV(boosted("lightgbm", "Classifier"), cv=2), examples())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    step = Step((), type("LGBMClassifier", (), {})())
    monkeypatch.setattr(mends, "is_installed", lambda package: False)
    assert mends.convert_mend(step, RuntimeError("no converter")) == "pip install 'tidemill[boosting]'"


@pytest.mark.slow
def test_nothing_is_imported_that_a_project_does_not_use() -> None:
    """Training alone imports no library of boosted trees, which would take seconds."""
    code = "import tidemill.training.version, sys; print([name for name in ('lightgbm', 'xgboost', 'catboost', 'onnxmltools') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
