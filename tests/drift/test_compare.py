"""Comparisons against scipy and scikit-learn, and input that has nothing to compare."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, fisher_exact, norm
from tests.drift.samples import zipf

from tidemill.stats.calibration import calibrated
from tidemill.stats.histograms import Histogram, count, held_out_reference, reference
from tidemill_drift.compare import ENOUGH_EXPECTED, LEAST_EXPECTED, Finding, Share, compare_distribution, compare_missing
from tidemill_drift.performance import HeldAuc, HeldMean, compare_auc, compare_calibration, compare_growth

LEVEL = 1e-3
COUNTS = st.integers(1, 12).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 400), min_size=n, max_size=n) for _ in range(2)]))


def histogram(counts: list[int], missing: int = 0) -> Histogram:
    """A histogram with whole edges."""
    return Histogram([float(i) for i in range(1, len(counts))], counts, missing, sum(counts) + missing)


def distribution(a: Histogram, b: Histogram) -> Finding | None:
    """The comparison of an input called x."""
    return compare_distribution("feature_drift", "x", a, b, LEVEL)


@given(COUNTS)
def test_chi_square_is_scipys_on_the_joined_bins(pair: tuple[list[int], list[int]]) -> None:
    """Joined naively until the smaller sample expects five, the statistic and its threshold are those of a contingency table."""
    table = [[*column] for column in zip(*pair, strict=True)]
    total = [sum(column) for column in pair]
    share = min(total) / max(sum(total), 1)
    joined: list[list[int]] = []
    for column in table:
        if joined and sum(joined[-1]) * share < LEAST_EXPECTED:
            joined[-1] = [x + y for x, y in zip(joined[-1], column, strict=True)]
        else:
            joined.append(column)
    if len(joined) > 1 and sum(joined[-1]) * share < LEAST_EXPECTED:
        joined[-2:] = [[x + y for x, y in zip(joined[-2], joined[-1], strict=True)]]
    found = distribution(histogram(pair[0]), histogram(pair[1]))
    if len(joined) < 2 and min(total) >= LEAST_EXPECTED and sum(map(bool, map(sum, table))) > 1:
        assert found is not None
        assert found.test == "exact counts and PSI"
        return
    if len(joined) < 2 or not min(total):
        assert found is None
        return
    assert found is not None
    oracle = chi2_contingency(np.array(joined).T, correction=False)
    assert oracle.expected_freq.min() >= LEAST_EXPECTED
    assert (found.test == "chi-square and PSI") == (oracle.expected_freq.min() >= ENOUGH_EXPECTED)
    if found.test != "chi-square and PSI":
        sums = [(sum(column[0] for column in joined[:i]), sum(column[1] for column in joined[:i])) for i in range(1, len(joined))]
        chances = [fisher_exact([[x, total[0] - x], [y, total[1] - y]]).pvalue for x, y in [*joined, *sums]]
        assert norm.sf(found.statistic) >= min(chances) - 1e-9  # the least of many chances is less certain than one alone
        return
    assert found.statistic == pytest.approx(oracle.statistic, abs=1e-9)
    if abs(oracle.pvalue / LEVEL - 1) > 1e-6:
        assert (found.statistic > found.threshold) == (oracle.pvalue < LEVEL)


@given(COUNTS)
def test_findings_are_finite_and_symmetric_in_size(pair: tuple[list[int], list[int]]) -> None:
    """Whatever the counts, numbers fit into JSON, and PSI does not care which sample came first."""
    a, b = histogram(pair[0]), histogram(pair[1])
    there, back = distribution(a, b), distribution(b, a)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        numbers = (there.statistic, there.threshold, there.effect, there.reference, there.current)
        assert all(map(math.isfinite, numbers))
        assert there.effect == pytest.approx(back.effect)


@pytest.mark.parametrize(("n", "m"), [(1000, 200), (1000, 5000), (50_000, 200)])
def test_psi_has_no_bias(n: int, m: int) -> None:
    """The average size of two samples from one law is zero, where plain PSI would give (bins - 1) (1/n + 1/m)."""
    random = np.random.default_rng(5)
    law = np.full(10, 0.1)
    sizes = []
    for _ in range(200):
        found = distribution(histogram(random.multinomial(n, law).tolist()), histogram(random.multinomial(m, law).tolist()))
        assert found is not None
        sizes.append(found.effect)
    bias = 9 * (1 / n + 1 / m)
    assert abs(float(np.mean(sizes))) < max(4 * float(np.std(sizes)) / math.sqrt(len(sizes)), 0.1 * bias)


def test_a_constant_that_changes_and_one_that_does_not() -> None:
    """A column that was always 5 and is 7 now has moved; one that stays cannot be compared."""
    before = reference(np.full(1000, 5.0))
    moved = distribution(before, count(before.edges, np.full(300, 7.0)))
    assert moved is not None
    assert moved.drifted
    assert (moved.reference, moved.current) == (0.0, 1.0) or (moved.reference, moved.current) == (1.0, 0.0)
    assert distribution(before, count(before.edges, np.full(300, 5.0))) is None


@pytest.mark.parametrize("categories", [(), tuple("abcdefghij")])
def test_all_in_one_place_beside_a_small_reference(categories: tuple[str, ...]) -> None:
    """A window of which every value lies in one bin has moved, although the few held-out rows expect less than five in any other."""
    held = histogram([0, *[2] * 10, 0])
    now = histogram([0, 0, 0, 400, *[0] * 8])
    found = compare_distribution("feature_drift", "x", held, now, LEVEL, categories)
    assert found is not None
    assert found.drifted
    again = compare_distribution("feature_drift", "x", held, histogram([0, *[40] * 10, 0]), LEVEL, categories)
    assert again is None or not again.drifted


def test_rain_that_was_rare_is_seen() -> None:
    """A zero-inflated column is compared by more than its zero."""
    random = np.random.default_rng(4)
    before = reference(np.where(random.random(5000) < 0.95, 0.0, random.random(5000)))
    found = distribution(before, count(before.edges, np.where(random.random(500) < 0.6, 0.0, random.random(500))))
    assert found is not None
    assert found.drifted
    assert found.reference == pytest.approx(0.05, abs=0.02)
    assert found.current == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize(
    ("values", "moved"),
    [([], None), ([1.0], None), ([math.nan] * 300, None), ([math.inf] * 300, True), ([-math.inf] * 300, True), ([1e308] * 300, True)],
)
def test_windows_with_little_to_compare(values: list[float], moved: bool | None) -> None:
    """Of nothing, one row or rows that all miss the value nothing is said; values that are all out at one end have moved."""
    before = reference(np.random.default_rng(1).normal(size=1000))
    found = distribution(before, count(before.edges, np.array(values)))
    assert (None if found is None else found.drifted) is moved


def test_a_finding_names_where_it_moved() -> None:
    """The bin that adds most to the distance is told in words, by category when there are any."""
    random = np.random.default_rng(6)
    before = reference(zipf(random, 5000, 5), category=True)
    now = count(before.edges, np.where(random.random(1000) < 0.5, 3.0, zipf(random, 1000, 5)))
    found = compare_distribution("feature_drift", "x", before, now, LEVEL, ["UA", "AA", "DL", "B6", "WN"])
    assert found is not None
    assert found.what == "share of B6"
    assert found.current > 0.5
    assert found.reference < 0.2
    plain = distribution(before, now)
    assert plain is not None
    assert plain.what == "share of values from 3 to 4"


def test_rare_texts_are_compared_together() -> None:
    """Of five thousand texts the frequent ones have a bin each, all others one, with those never seen: that these change is no drift."""
    random = np.random.default_rng(7)
    texts = [f"c{i}" for i in range(5000)]
    for size in (300, 2000):
        rows = zipf(random, 5 * size, 5000)
        before = held_out_reference(rows, size, 5000)
        assert before.unseen not in (0, size)
        now = zipf(random, size, 5000)
        new = ~np.isin(now, rows)
        window = msgspec.structs.replace(count(before.edges, now[~new]), unseen=int(new.sum()), rows=size)
        found = compare_distribution("feature_drift", "x", before, window, LEVEL, texts)
        assert found is not None
        assert not found.drifted
        for drawn, said in ((np.full(size, 3000.0), "share of c3000"), (np.full(size, np.nan), "share of c0")):
            moved = msgspec.structs.replace(count(before.edges, drawn), unseen=int(np.isnan(drawn).sum()), rows=size)
            found = compare_distribution("feature_drift", "x", before, moved, LEVEL, texts)
            assert found is not None
            assert (found.drifted, found.what) == (True, said)


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 300), st.integers(0, 300))
def test_missing_is_fishers_exact_test(rows: int, missing: int, now_rows: int, now_missing: int) -> None:
    """The score is that of Fisher's chance, one-sided; fewer missing is no alarm."""
    a, b = Share(missing, rows + missing), Share(now_missing, now_rows + now_missing)
    found = compare_missing("x", a, b, LEVEL)
    assert found is not None
    oracle = fisher_exact([[now_missing, now_rows], [missing, rows]], alternative="greater").pvalue
    assert norm.sf(found.statistic) == pytest.approx(oracle, rel=1e-6, abs=1e-12)
    assert found.threshold == pytest.approx(norm.isf(LEVEL))
    assert not (found.drifted and found.current <= found.reference)
    assert compare_missing("x", Share(0, 0), b, LEVEL) is None


def test_performance_of_a_model_that_is_always_certain_and_right() -> None:
    """Perfect separation has no standard error; the finding is calm and finite all the same."""
    labels = np.array([0.0, 1.0] * 200)
    for found in (compare_auc(labels, labels, HeldAuc(1.0, 0.0), LEVEL), compare_calibration(labels, labels, None, LEVEL)):
        assert found is not None
        assert math.isfinite(found.statistic)
        assert found.calm
    turned = compare_auc(labels, 1 - labels, HeldAuc(1.0, 0.0, 100, 100), LEVEL)
    assert turned is not None
    assert turned.drifted
    assert math.isfinite(turned.statistic)
    assert compare_calibration(np.ones(400), np.zeros(400), None, LEVEL).drifted
    assert compare_auc(np.zeros(300), labels[:300], HeldAuc(0.8, 0.01), LEVEL) is None


def test_calibration_sees_a_rate_that_is_off() -> None:
    """Scores of a tenth and outcomes of a tenth agree; outcomes of a fifth do not."""
    random = np.random.default_rng(3)
    scores = random.beta(1, 9, 4000)
    assert not compare_calibration((random.random(4000) < scores).astype(float), scores, None, LEVEL).drifted
    assert compare_calibration((random.random(4000) < 2 * scores).astype(float), scores, None, LEVEL).drifted


def off_by_design(random: np.random.Generator, rows: int, rate: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes, and scores as balanced class weights make them: far above the share of the outcome. `rate`: how much more often it comes."""
    true = random.beta(1, 9, rows)
    return (random.random(rows) < rate * true).astype(float), true * 9 / (true * 9 + (1 - true))


def test_a_model_is_calibrated_as_on_its_holdout() -> None:
    """Scores that are off by design are off on the holdout, too: no alarm, until the outcome comes more often, or not at all."""
    random = np.random.default_rng(4)
    held = calibrated(*off_by_design(random, 2000))
    assert held.difference < -0.2
    found = compare_calibration(*off_by_design(random, 1000), held, LEVEL)
    assert (found.drifted, found.reference) == (False, held.difference)
    assert ": predicted 0." in found.told
    for rate in (2.5, 0.0):
        moved = compare_calibration(*off_by_design(random, 1000, rate), held, LEVEL)
        assert moved.drifted, rate


@pytest.mark.parametrize("positives", [0, 1, 2, 3])
def test_few_outcomes_never_look_like_certainty(positives: int) -> None:
    """Of 300 rows some are positive where three are expected: that may be chance, however far away the scores are and however small the holdout."""
    scores = np.full(300, 0.01)
    labels = (np.arange(300) < positives).astype(float)
    for held in (None, calibrated(np.array([1.0] + [0.0] * 99), np.full(100, 0.01)), calibrated(np.zeros(100), np.full(100, 0.01))):
        assert not compare_calibration(labels, scores, held, LEVEL).drifted
    assert compare_auc(labels, np.linspace(0, 1, 300), HeldAuc(0.99, 0.001, 50, 50), LEVEL) is None


def test_a_holdout_of_few_outcomes_is_no_certainty() -> None:
    """Two positives that were ranked first by luck are no proof that the model ranked better then."""
    random = np.random.default_rng(5)
    labels = np.repeat([1.0, 0.0], [100, 900])
    scores = random.normal(size=1000) + labels
    found = compare_auc(labels, scores, HeldAuc(1.0, 0.0, 2, 98), LEVEL)
    assert found is not None
    assert not found.drifted
    sure = compare_auc(labels, scores, HeldAuc(1.0, 0.0, 200, 9800), LEVEL)
    assert sure is not None
    assert sure.drifted


@pytest.mark.parametrize(("scale", "drifted"), [(1.0, False), (1.1, False), (1.4, True)])
@pytest.mark.parametrize("rows", [0, 5000])
def test_error_of_a_regressor(scale: float, drifted: bool, rows: int) -> None:
    """Errors a tenth larger are below the floor, two fifths larger are told."""
    errors = np.abs(np.random.default_rng(2).normal(size=5000) * scale)
    held = HeldMean(math.sqrt(2 / math.pi), 0.01, rows)
    found = compare_growth("mae", "mean absolute error", errors, held, LEVEL)
    assert found is not None
    assert found.drifted == drifted
    assert compare_growth("mae", "mean absolute error", errors[:1], HeldMean(1.0, 0.0, 0), LEVEL) is None
    assert compare_growth("mae", "mean absolute error", errors, HeldMean(0.0, 0.0, 0), LEVEL) is None


def test_errors_with_a_heavy_tail_do_not_ring() -> None:
    """A holdout without a rare huge error knows nothing of its spread; the window's spread counts for it, too."""
    held = HeldMean(1.0, 0.01, 60)
    errors = np.concatenate([np.ones(395), np.full(5, 200.0)])
    found = compare_growth("mae", "mean absolute error", errors, held, LEVEL)
    assert found is not None
    assert found.effect > 2
    assert not found.drifted
