"""The engine: one row per call, the same bits whatever ran before, and what is refused at load."""

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from tests.demo_state import demo, trained

from tidemill.errors import ArtifactError
from tidemill.models.artifact import Artifact, ModelInput
from tidemill.models.engine import Engine

CLASSIFIER, REGRESSOR = (trained(demo().models[name]) for name in ("big_tip", "fare"))
ROWS = np.random.default_rng(3).normal(size=(200, 12)).astype(np.float32) * 20


@pytest.mark.parametrize("artifact", [CLASSIFIER, REGRESSOR], ids=["probability", "value"])
def test_a_row_gives_the_same_bits_in_any_order_and_session(artifact: Artifact) -> None:
    """Outputs do not depend on neighbours, order, repetition or the session."""
    rows = ROWS[:, : len(artifact.manifest.inputs)]
    first = [Engine(artifact).predict(row) for row in rows]
    engine = Engine(artifact)
    order = np.random.default_rng(4).permutation(len(rows))
    again = {i: engine.predict(rows[i]) for i in order}
    assert [again[i] for i in range(len(rows))] == first
    assert all(float(np.float32(output)) == output for output in first)


def test_a_probability_is_that_of_the_true_class() -> None:
    """The second column, as scikit-learn orders the classes False and True: it grows with what the label was made of."""
    engine = Engine(CLASSIFIER)
    low, high = (engine.predict(np.full(12, value, np.float32)) for value in (-30, 30))
    assert (0 <= low < 0.01, 0.99 < high <= 1) == (True, True)


@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=12, max_size=12))
@settings(max_examples=50)
def test_any_finite_row_with_gaps_gets_a_number(values: list[float]) -> None:
    """Missing and extreme values are ordinary input."""
    assert 0 <= Engine_of_tests.predict(np.array(values, np.float32)) <= 1


Engine_of_tests = Engine(CLASSIFIER)


def convert(columns: int, **options: Any) -> bytes:
    """A logistic regression without an imputer."""
    model = LogisticRegression().fit(ROWS[:, :columns], ROWS[:, 0] > 0)
    onnx: bytes = to_onnx(model, initial_types=[("x", FloatTensorType([None, columns]))], options={id(model): options}).SerializeToString()
    return onnx


def refused(onnx: bytes, match: str, **changes: Any) -> None:
    """Loading this must fail, saying so."""
    manifest = msgspec.structs.replace(CLASSIFIER.manifest, golden=[], onnx_sha256=hashlib.sha256(onnx).hexdigest(), **changes)
    with pytest.raises(ArtifactError, match=match):
        Engine(Artifact(manifest, onnx))


def test_models_that_cannot_serve_are_refused_at_load() -> None:
    """No ONNX file, another width, zipmap left on, a regressor called a classifier, and no number when all is missing."""
    refused(b"nothing", "not a model that onnxruntime can load")
    refused(convert(11, zipmap=False), "not one float32 matrix of 12 columns")
    refused(convert(12), "no float32 output of 2 columns")
    refused(REGRESSOR.onnx, "2 columns", inputs=[ModelInput("a", "number"), ModelInput("b", "number")])
    refused(convert(12, zipmap=False), "gives no number when all inputs are missing; put an imputer first")
