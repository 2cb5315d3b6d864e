"""Runners: several named inputs and outputs, what they say of themselves, and an engine over something that is no ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.demo_state import demo, trained

from tidemill.errors import ArtifactError
from tidemill.models.artifact import GoldenRow, Parity
from tidemill.models.engine import Engine, load_engine
from tidemill.models.runner import Array, OnnxRunner, Runner, TensorSpec

FLOAT = np.dtype(np.float32)


def two_by_two() -> bytes:
    """A graph of two inputs and two outputs: `total` is the sum of `left` and `right`, `count` is `right` as whole numbers."""
    left, right = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in ("left", "right"))
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows", 2])
    count = helper.make_tensor_value_info("count", TensorProto.INT64, ["rows", 2])
    nodes = [helper.make_node("Add", ["left", "right"], ["total"]), helper.make_node("Cast", ["right"], ["count"], to=TensorProto.INT64)]
    graph = helper.make_graph(nodes, "two", [left, right], [total, count])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def test_a_runner_says_what_it_takes_and_gives() -> None:
    """Names, types and shapes come from the file alone; a length that is not fixed is None."""
    runner: Runner = OnnxRunner("two", two_by_two())
    assert list(runner.inputs) == [TensorSpec("left", FLOAT, (None, 2)), TensorSpec("right", FLOAT, (None, 2))]
    assert list(runner.outputs) == [TensorSpec("total", FLOAT, (None, 2)), TensorSpec("count", np.dtype(np.int64), (None, 2))]
    assert str(runner.inputs[0]) == "left float32 [any, 2]"


WHOLE = st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=1, max_size=5)


@given(WHOLE, st.sampled_from([None, ["total"], ["count"], ["count", "total"], ["total", "count"]]))
@settings(max_examples=40, deadline=None)
def test_outputs_come_in_the_order_asked_for(pairs: list[tuple[int, int]], wanted: list[str] | None) -> None:
    """Whatever outputs are asked for, each is what numpy computes, in the order of the question."""
    right = np.array(pairs, np.float32)
    left = right * 2 + 1
    expected = {"total": left + right, "count": right.astype(np.int64)}
    found = TWO.run({"left": left, "right": right}, wanted)
    assert len(found) == len(wanted or expected)
    for name, array in zip(wanted or ["total", "count"], found, strict=True):
        assert np.array_equal(array, expected[name])
        assert array.dtype == expected[name].dtype


TWO = OnnxRunner("two", two_by_two())


def test_a_model_of_several_inputs_is_no_matrix_model() -> None:
    """An engine takes one matrix; the error names all that the model takes."""
    with pytest.raises(ArtifactError, match=r"two takes left float32 \[any, 2\], right float32 \[any, 2\], not one float32 matrix of 2"):
        Engine("two", TWO, 2, "value")


def test_bytes_that_are_no_model() -> None:
    """The error has the model's label."""
    with pytest.raises(ArtifactError, match="two v1 is not a model that onnxruntime can load"):
        OnnxRunner("two v1", b"nothing")


class Weighted:
    """A runner in Python: the weighted sum of a row, NaN counting as nothing."""

    inputs: Sequence[TensorSpec] = (TensorSpec("row", FLOAT, (None, 3)),)
    outputs: Sequence[TensorSpec] = (TensorSpec("why", np.dtype(object), (None,)), TensorSpec("sum", FLOAT, (None, 1)))

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str] | None = None) -> list[Array]:
        """Only `sum` is ever asked for."""
        assert wanted == ["sum"]
        return [np.nansum(inputs["row"] * np.array([1, 2, 4], np.float32), axis=1, keepdims=True)]


def test_an_engine_runs_whatever_is_a_runner() -> None:
    """It finds the output by its shape, warms it up, and holds it to its golden rows."""
    engine = Engine("weighted", Weighted(), 3, "value")
    assert engine.input_name == "row"
    assert engine.predict(np.array([1, 1, 1], np.float32)) == 7.0
    engine.check_golden([GoldenRow([1.0, None, 1.0], 5.0)], Parity(0.0, 0, 0.0))
    with pytest.raises(ArtifactError, match=r"weighted gives 5.0 where it gave 5.5 when it was made"):
        engine.check_golden([GoldenRow([1.0, None, 1.0], 5.5)], Parity(0.0, 0, 0.05))


@pytest.mark.parametrize("name", ["big_tip", "fare"])
def test_an_engine_from_bytes_is_the_engine_of_the_stored_version(name: str) -> None:
    """The bytes, the width and what it must give are enough: the manifest adds nothing to the outputs."""
    artifact = trained(demo().models[name])
    columns = len(artifact.manifest.inputs)
    rows = np.random.default_rng(5).normal(size=(50, columns)).astype(np.float32)
    bare = Engine.of_onnx("bare", artifact.onnx, columns, artifact.manifest.output)
    stored = load_engine(artifact)
    assert [bare.predict(row) for row in rows] == [stored.predict(row) for row in rows]
