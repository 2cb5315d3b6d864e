"""Versions on the same requests: pairs are found by id, whatever role had them, and losses are those of scikit-learn and of plain Python."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error, roc_auc_score
from tests.demo_state import demo
from tests.offline.lake import numbered

from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import RESULTS_SCHEMA, predictions_table, results_rows, shadows_table
from tidemill.proof.paired import measures, paired_versions
from tidemill.records import PredictionRecord, ResultRecord, encode

OUTPUTS = st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.booleans()), min_size=2, max_size=50)


@given(OUTPUTS)
def test_losses_of_probabilities(rows: list[tuple[float, float, bool]]) -> None:
    """Each mean is scikit-learn's; the interval lies around the mean difference, as wide as plain Python says."""
    first, other, outcomes = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    log, brier = measures(first, other, outcomes, "probability")
    labels = [0.0, 1.0]
    assert (log.first, log.other) == pytest.approx((log_loss(outcomes, first, labels=labels), log_loss(outcomes, other, labels=labels)))
    assert (brier.first, brier.other) == pytest.approx((np.mean((outcomes - first) ** 2), np.mean((outcomes - other) ** 2)))
    differences = [(o - b) ** 2 - (o - a) ** 2 for a, b, o in zip(first.tolist(), other.tolist(), outcomes.tolist(), strict=True)]
    reach = 1.959964 * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    assert (brier.difference, brier.low, brier.high) == pytest.approx((mean, mean - reach, mean + reach), abs=1e-12)


def test_losses_of_values() -> None:
    """Absolute and squared errors; one pair has no interval, none has nothing."""
    first, other, outcomes = np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 2.0]), np.array([1.0, 3.0, 3.0])
    mae, mse = measures(first, other, outcomes, "value")
    assert (mae.first, mae.other) == (mean_absolute_error(outcomes, first), mean_absolute_error(outcomes, other))
    assert (mse.first, mse.other) == (mean_squared_error(outcomes, first), mean_squared_error(outcomes, other))
    assert math.isnan(measures(first[:1], other[:1], outcomes[:1], "value")[0].low)
    assert math.isnan(measures(first[:0], other[:0], outcomes[:0], "value")[0].first)


def test_losses_of_several_classes(tmp_path: Path) -> None:
    """Those of scikit-learn over the classes of both versions; a class that only one version knows, and one that none knows, counts for both."""
    draw, store = np.random.default_rng(2), OfflineStore(tmp_path)
    known = [["late", "on time", "cancelled"], ["on time", "late"]]
    answers = [[dict(zip(names, draw.dirichlet(np.ones(len(names))).tolist(), strict=True)) for _ in range(80)] for names in known]
    outcomes = [["late", "on time", "cancelled", "diverted"][place] for place in draw.choice(4, 80, p=[0.4, 0.3, 0.2, 0.1])]
    for table, version, given_ in zip((predictions_table(demo()), shadows_table(demo())), ("v1", "v2"), answers, strict=True):
        rows = [
            (b"p%d" % i, encode(PredictionRecord(f"p{i}", "m", version, 5, 6, [1.0], max(found.values()), f"s{i}", probabilities=found)))
            for i, found in enumerate(given_)
        ]
        log = store.topic_table(table)
        log.open()
        log.append(table.rows(0, numbered(rows)), {(table.topic, 0): (0, len(rows))})
    results = store.counted_table("results", RESULTS_SCHEMA)
    results.open()
    joined = [ResultRecord(i, f"p{i}", "m", "v1", f"s{i}", 5, 0.5, "joined", 9, outcome) for i, outcome in enumerate(outcomes)]
    results.append(results_rows([*joined, ResultRecord(80, "p0", "m", "v1", "s0", 5, 0.5, "never", 9)]), {"seq": (0, 81)})
    found = paired_versions(store, "m", "v1", "v2", "probabilities")
    classes = sorted(known[0])
    first, other = (np.array([[one.get(name, 0.0) for name in classes] for one in given_]) for given_ in answers)
    assert (found.pairs, found.answered) == (80, 80)
    assert found.apart == pytest.approx(np.abs(first - other).mean())
    for got, measured in ((first, 0), (other, 1)):
        said = [[measure.first, measure.other][measured] for measure in found.measures]
        clipped = np.clip([row[classes.index(name)] if name in classes else 0.0 for row, name in zip(got, outcomes, strict=True)], 1e-7, 1)
        squares = [
            sum((float(name == of) - p) ** 2 for of, p in zip(classes, row, strict=True)) + (name not in classes)
            for row, name in zip(got, outcomes, strict=True)
        ]
        wrong = [classes[row.argmax()] != name for row, name in zip(got, outcomes, strict=True)]
        assert said == pytest.approx([-np.log(clipped).mean(), np.mean(squares), np.mean(wrong)])
    aucs = [
        np.mean([roc_auc_score([name == of for name in outcomes], got[:, i]) for i, of in enumerate(classes)]) for got in (first, other)
    ]
    assert found.auc == pytest.approx(tuple(aucs))


def record(number: int, version: str, output: float) -> tuple[bytes, bytes]:
    """A logged prediction."""
    return f"p{number}".encode(), encode(PredictionRecord(f"p{number}", "big_tip", version, 5, 6, [1.0], output, f"s{number}"))


def test_pairs_are_found_by_id(tmp_path: Path) -> None:
    """v1 answers all; v2 was its shadow, then its challenger, then its shadow again; a repeated record and another model count nothing twice."""
    draw, store = random.Random(1), OfflineStore(tmp_path)
    assert paired_versions(store, "big_tip", "v1", "v2", "probability").pairs == 0
    outcomes = [float(draw.random() < 0.4) for _ in range(90)]
    one, two = ([draw.random() for _ in outcomes] for _ in range(2))
    by_two = range(30, 60)
    live = [record(i, "v2" if i in by_two else "v1", (two if i in by_two else one)[i]) for i in range(90)]
    shadows = [record(i, "v2", two[i]) for i in range(90) if i not in by_two] + [record(i, "v1", one[i]) for i in range(40, 60)]
    for table, rows in ((predictions_table(demo()), [*live, live[3]]), (shadows_table(demo()), [*shadows, shadows[0]])):
        log = store.topic_table(table)
        log.open()
        log.append(table.rows(0, numbered(rows)), {(table.topic, 0): (0, len(rows))})
    answered = [i for i in range(90) if i % 3]
    results = [ResultRecord(i, f"p{i}", "big_tip", "v1", f"s{i}", 5, one[i], "joined", 9, outcomes[i]) for i in answered]
    results += [ResultRecord(90 + i, f"p{i}", "big_tip", "v1", f"s{i}", 5, one[i], "never", 9) for i in range(0, 90, 3)]
    rows = pa.Table.from_batches([results_rows(results)], RESULTS_SCHEMA)
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "results"), rows)
    found = paired_versions(store, "big_tip", "v1", "v2", "probability")
    pairs = [i for i in range(90) if i not in range(30, 40)]
    judged = [i for i in pairs if i % 3]
    assert (found.pairs, found.answered) == (len(pairs), len(judged))
    assert found.apart == pytest.approx(statistics.fmean(abs(one[i] - two[i]) for i in pairs))
    truth = [outcomes[i] for i in judged]
    assert found.auc == pytest.approx(tuple(roc_auc_score(truth, [of[i] for i in judged]) for of in (one, two)))
    brier = found.measures[1]
    assert (brier.first, brier.other) == pytest.approx(tuple(brier_score_loss(truth, [of[i] for i in judged]) for of in (one, two)))
