"""Measured false alarms on data that has not moved, and what is found when it has."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.drift import BUDGET, LAWS, allowed, draw, false_alarms, power, ruler
from tests.drift.samples import manifest, rows

from tidemill_drift.monitor import LEAST_ROWS, PredictionRow, ResultRow, compare_predictions, compare_ranking, compare_results


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("reference", "size"), [(1000, 200), (1000, 2000)])
def test_stationary_windows_stay_silent(law: str, reference: int, size: int) -> None:
    """Not more windows than the budget allows raise an alert; by evidence alone it is not many more, though the reference is a small sample."""
    found = false_alarms(law, reference, size, columns=10, windows=100)
    assert found.alerts <= allowed(100)
    assert found.evidence <= 0.06


@pytest.mark.parametrize("law", ["normal", "lognormal"])
def test_a_shift_of_a_standard_deviation_is_always_found(law: str) -> None:
    """A real shift is found in a window of the least size, and evidence finds half of one."""
    assert power(law, 5000, LEAST_ROWS, 1.0, windows=20).alerts == 1
    assert power(law, 5000, 1000, 0.5, windows=20).evidence == 1


def test_a_whole_window_through_the_monitor() -> None:
    """Stationary inputs of every law raise nothing; one moved input, one gone missing and a moved output are told, and nothing else."""
    random = np.random.default_rng(11)
    names = ["normal", "lognormal", "category five", "category fifty"]
    columns = {name: draw(law, random, 5000) for name, law in zip(names, LAWS, strict=True)}
    model = manifest(columns, random.beta(2, 5, 1000))
    now = {name: draw(law, random, 1000) for name, law in zip(names, LAWS, strict=True)}
    calm = rows(now, random.beta(2, 5, 1000))
    assert not [f for f in compare_predictions(model, calm, BUDGET) if f.drifted]
    now["normal"] += 1
    now["lognormal"][random.random(1000) < 0.3] = np.nan
    moved = rows(now, random.beta(5, 2, 1000))
    told = {(f.kind, f.subject) for f in compare_predictions(model, moved, BUDGET) if f.drifted}
    assert told == {("feature_drift", "normal"), ("data_quality", "lognormal"), ("prediction_drift", "prediction")}
    wrong = [PredictionRow(np.zeros(2, np.float32), 0.5)] * 300
    assert list(compare_predictions(model, calm + wrong, BUDGET)) == list(compare_predictions(model, calm, BUDGET))
    assert not list(compare_predictions(model, calm[: LEAST_ROWS - 1] + wrong, BUDGET))


def test_performance_through_the_monitor() -> None:
    """Results as good as the holdout raise nothing; a worse ranking and a changed rate are told."""
    random = np.random.default_rng(12)
    scores = random.beta(1, 3, 2000)
    labels = (random.random(2000) < scores).astype(float)
    model = manifest({"x": random.normal(size=500)}, scores, auc=0.73, auc_error=0.01)
    good = [ResultRow(s, y) for s, y in zip(scores, labels, strict=True)]
    assert not [f for compare in (compare_results, compare_ranking) for f in compare(model, good, BUDGET) if f.drifted]
    bad = [ResultRow(s, y) for s, y in zip(scores, 1 - random.permutation(labels), strict=True)]
    assert [f.subject for f in compare_results(model, bad, BUDGET) if f.drifted] == ["calibration"]
    assert [f.subject for f in compare_ranking(model, bad, BUDGET) if f.drifted] == ["auc"]
    assert list(compare_results(model, good[: LEAST_ROWS - 1], BUDGET)) == []


def test_a_regressor_through_the_monitor() -> None:
    """Errors twice as large are told; without an error of the reference it counts as exact."""
    random = np.random.default_rng(13)
    model = manifest({"x": random.normal(size=500)}, random.normal(size=500), output="value", mae=0.8, mae_error=0.02)
    for scale, drifted in ((1.0, False), (2.0, True)):
        results = [ResultRow(0.0, y) for y in random.normal(scale=scale, size=1000)]
        assert [f.drifted for f in compare_results(model, results, BUDGET)] == [drifted]


def test_the_reference_is_a_sample_too() -> None:
    """A small reference, whose own error is as large as the window's, does not ring more often: the test has two samples."""
    random = np.random.default_rng(14)
    before = [ruler("normal", random, 300) for _ in range(3)]
    assert all(sum(h.counts) + h.missing == 300 for h in before)
    assert false_alarms("normal", 300, 5000, columns=10, windows=60).evidence <= 0.06
