"""The protocol's bodies, without a server."""

import json
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import demo, trained
from tests.inference.test_messages import JSON

from tidemill.errors import BadRequest
from tidemill_inference.oip.messages import InferAnswer, InferRequest, ModelSpec, TensorMetadata, metadata, model_spec
from tidemill_inference.oip.rest import HEADER_LENGTH, infer_answer, oip_error, parse_infer

FIELDS = st.sampled_from(["inputs", "outputs", "id", "parameters", "name", "shape", "datatype", "data", "x"])
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "y"]),
        "shape": st.lists(st.integers(-2, 3), max_size=3),
        "datatype": st.sampled_from(["FP32", "INT8", "?"]),
    },
    optional={"data": JSON, "parameters": JSON},
)
BODIES = JSON | st.dictionaries(FIELDS, JSON) | st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=2)}, optional={"outputs": JSON})


@cache
def spec() -> ModelSpec:
    """A model with one input `x` of two columns."""
    return model_spec(trained(demo().models["fare"]).manifest, "x", ["v1"])


def parse(body: bytes, **headers: bytes) -> InferRequest:
    """Parse for a model with one input `x` of two columns."""
    return parse_infer(body, {name.replace("_", "-").encode(): value for name, value in headers.items()}, spec())


@given(st.binary() | BODIES.map(lambda value: json.dumps(value).encode()), st.none() | st.binary(max_size=3) | st.integers(0, 40))
def test_any_body_is_a_request_or_a_bad_request(body: bytes, length: bytes | int | None) -> None:
    """Whatever is sent, with whatever length of the JSON part, gives a float32 matrix without infinities or BadRequest."""
    text = length if isinstance(length, bytes) else str(length).encode()
    try:
        request = parse_infer(body, {} if length is None else {HEADER_LENGTH: text}, spec())
    except BadRequest:
        return
    (matrix,) = request.inputs.values()
    assert matrix.dtype == np.float32
    assert matrix.shape[1] == 2
    assert not np.isinf(matrix).any()


def request(data: Any, rows: int, datatype: str = "FP32", **extra: Any) -> bytes:
    """A JSON request."""
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": datatype, "data": data}]} | extra).encode()


@given(st.lists(st.tuples(st.floats(width=32, allow_infinity=False, allow_nan=False), st.none() | st.just(1.5)), min_size=1, max_size=6))
def test_flat_nested_and_binary_data_are_the_same_matrix(rows: list[tuple[float, float | None]]) -> None:
    """Three ways to send a matrix; null is NaN."""
    flat = [value for row in rows for value in row]
    nested = parse(request(rows, len(rows))).inputs["x"]
    raw = np.array([np.nan if value is None else value for value in flat], "<f4").tobytes()
    tensor = {"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    binary = parse_infer(head + raw, {HEADER_LENGTH: str(len(head)).encode()}, spec()).inputs["x"]
    assert np.array_equal(parse(request(flat, len(rows))).inputs["x"], nested, equal_nan=True)
    assert np.array_equal(binary, nested, equal_nan=True)


@pytest.mark.parametrize(("datatype", "code"), [("FP16", "e"), ("FP64", "d"), ("INT8", "b"), ("UINT16", "H"), ("INT64", "q")])
def test_number_types_are_cast(datatype: str, code: str) -> None:
    """Other number types become float32."""
    raw = struct.pack(f"<2{code}", 3, 100)
    tensor = {"name": "x", "shape": [1, 2], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    assert parse_infer(head + raw, {HEADER_LENGTH: str(len(head)).encode()}, spec()).inputs["x"].tolist() == [[3.0, 100.0]]


def test_the_answers_form_follows_the_request() -> None:
    """Binary only when the output asks for it, or the request does and the output says nothing."""
    for extra, binary in (
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "value", "parameters": {"binary_data": False}}]}, False),
        ({"outputs": [{"name": "value", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "value"}]}, False),
    ):
        parsed = parse(request([1, 2], 1, id="i", **extra))
        answer = infer_answer(parsed, InferAnswer("fare", "v1", parsed.id, "p", {"value": [[0.5]]}))
        assert parsed.binary == {"value": binary}
        assert bool(answer.headers) is binary
        text = answer.body[: int(dict(answer.headers)[HEADER_LENGTH])] if binary else answer.body
        shown = json.loads(text)
        assert (shown["id"], shown["parameters"]) == ("i", {"prediction_id": "p"})
        assert shown["outputs"][0].get("data") == (None if binary else [0.5])


def test_an_error_is_one_text() -> None:
    """The protocol's clients show `error` alone, so cause and mend stand there together."""
    assert json.loads(oip_error(BadRequest("cause", mend="mend"))[1]) == {"error": "cause; mend"}
    assert json.loads(oip_error(BadRequest("cause"))[1]) == {"error": "cause"}


TWO = ModelSpec(
    "two",
    "v1",
    ["v1", "v2"],
    [TensorMetadata("a", 1), TensorMetadata("b", 2)],
    [TensorMetadata("high", 1), TensorMetadata("low", 1)],
    ["p", "q", "r"],
)


@given(
    st.lists(st.tuples(*[st.floats(width=32, allow_infinity=False)] * 3), min_size=1, max_size=4), st.permutations(["a", "b"]), st.data()
)
def test_several_inputs_in_any_order_and_form(rows: list[tuple[float, float, float]], order: list[str], data: st.DataObject) -> None:
    """Inputs are told apart by name; each is in JSON or in binary, the bytes following in the order of the inputs."""
    values = {"a": np.array(rows, "<f4")[:, :1], "b": np.array(rows, "<f4")[:, 1:]}
    tensors, raw = [], b""
    for name in order:
        tensor: dict[str, Any] = {"name": name, "shape": list(values[name].shape), "datatype": "FP32"}
        if data.draw(st.booleans()):
            raw += values[name].tobytes()
            tensor["parameters"] = {"binary_data_size": values[name].nbytes}
        else:
            tensor["data"] = [None if np.isnan(value) else value for value in values[name].ravel().tolist()]
        tensors.append(tensor)
    head = json.dumps({"inputs": tensors}).encode()
    found = parse_infer(head + raw, {HEADER_LENGTH: str(len(head)).encode()}, TWO)
    assert found.inputs.keys() == {"a", "b"}
    assert all(np.array_equal(found.inputs[name], values[name], equal_nan=True) for name in values)
    assert found.binary == {"high": False, "low": False}


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ([("a", [1, 1])], "the model has 'a', 'b'"),
        ([("a", [1, 1]), ("a", [1, 1])], "the model has 'a', 'b'"),
        ([("a", [1, 1]), ("b", [2, 2])], "the same number of rows"),
        ([("a", [1, 1]), ("b", [1, 3])], "input 'b'"),
    ],
)
def test_inputs_that_do_not_fit_together(tensors: list[tuple[str, list[int]]], named: str) -> None:
    """Each input is there once, and all have the same rows."""
    body = {
        "inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": [0.0] * (shape[0] * shape[1])} for name, shape in tensors]
    }
    with pytest.raises(BadRequest, match=named):
        parse_infer(json.dumps(body).encode(), {}, TWO)


def test_several_outputs_in_the_order_and_form_asked_for() -> None:
    """JSON holds the outputs in the order of the question, and the binary ones follow in that order."""
    asked = [{"name": "low", "parameters": {"binary_data": True}}, {"name": "high", "parameters": {"binary_data": True}}]
    inputs = [{"name": name, "shape": [1, columns], "datatype": "FP32", "data": [0.0] * columns} for name, columns in (("a", 1), ("b", 2))]
    answer = InferAnswer("two", "v1", "", "p", {"high": [[2.0]], "low": [[1.0]]})
    found = infer_answer(parse_infer(json.dumps({"inputs": inputs, "outputs": asked}).encode(), {}, TWO), answer)
    length = int(dict(found.headers)[HEADER_LENGTH])
    assert [output["name"] for output in json.loads(found.body[:length])["outputs"]] == ["low", "high"]
    assert struct.unpack("<2f", found.body[length:]) == (1.0, 2.0)
    one = infer_answer(parse_infer(json.dumps({"inputs": inputs, "outputs": [{"name": "low"}]}).encode(), {}, TWO), answer)
    assert json.loads(one.body)["outputs"] == [{"name": "low", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]


def test_metadata_of_several_inputs_outputs_and_versions() -> None:
    """All of them are named; -1 is any number of rows."""
    shown = metadata(TWO)
    assert shown["versions"] == ["v1", "v2"]
    assert [(item["name"], item["shape"]) for item in shown["inputs"]] == [("a", [-1, 1]), ("b", [-1, 2])]
    assert [(item["name"], item["shape"]) for item in shown["outputs"]] == [("high", [-1, 1]), ("low", [-1, 1])]
    with pytest.raises(BadRequest, match="the model has 2 inputs"):
        parse_infer(b"1234", {HEADER_LENGTH: b"0"}, TWO)


def test_messages_know_no_transport() -> None:
    """What HTTP and a coming gRPC share imports nothing of HTTP or of a server."""
    import tidemill_inference.oip.messages as module

    imported = set(vars(module)) | {getattr(value, "__module__", "") for value in vars(module).values()}
    assert not [name for name in imported if name.startswith(("tidemill.runtime", "fastapi", "starlette"))]
