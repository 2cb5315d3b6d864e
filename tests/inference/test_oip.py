"""The protocol's bodies, without a server."""

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import demo, trained
from tests.inference.test_messages import JSON

from tidemill.errors import BadRequest, BodyTooLarge
from tidemill_inference.oip import HEADER_LENGTH, InferRequest, infer_answer, oip_error, parse_infer

MANIFEST = trained(demo().models["fare"]).manifest
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


def parse(body: bytes, **headers: bytes) -> InferRequest:
    """Parse for a model with one input `x` of two columns."""
    return parse_infer(body, {name.replace("_", "-").encode(): value for name, value in headers.items()}, MANIFEST, "x")


@given(st.binary() | BODIES.map(lambda value: json.dumps(value).encode()), st.none() | st.binary(max_size=3) | st.integers(0, 40))
def test_any_body_is_a_request_or_a_bad_request(body: bytes, length: bytes | int | None) -> None:
    """Whatever is sent, with whatever length of the JSON part, gives a float32 matrix without infinities or BadRequest."""
    text = length if isinstance(length, bytes) else str(length).encode()
    try:
        request = parse_infer(body, {} if length is None else {HEADER_LENGTH: text}, MANIFEST, "x")
    except BadRequest:
        return
    assert request.matrix.dtype == np.float32
    assert request.matrix.shape[1] == 2
    assert not np.isinf(request.matrix).any()


def request(data: Any, rows: int, datatype: str = "FP32", **extra: Any) -> bytes:
    """A JSON request."""
    return json.dumps({"inputs": [{"name": "x", "shape": [rows, 2], "datatype": datatype, "data": data}]} | extra).encode()


@given(st.lists(st.tuples(st.floats(width=32, allow_infinity=False, allow_nan=False), st.none() | st.just(1.5)), min_size=1, max_size=6))
def test_flat_nested_and_binary_data_are_the_same_matrix(rows: list[tuple[float, float | None]]) -> None:
    """Three ways to send a matrix; null is NaN."""
    flat = [value for row in rows for value in row]
    nested = parse(request(rows, len(rows))).matrix
    raw = np.array([np.nan if value is None else value for value in flat], "<f4").tobytes()
    tensor = {"name": "x", "shape": [len(rows), 2], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    binary = parse_infer(head + raw, {HEADER_LENGTH: str(len(head)).encode()}, MANIFEST, "x").matrix
    assert np.array_equal(parse(request(flat, len(rows))).matrix, nested, equal_nan=True)
    assert np.array_equal(binary, nested, equal_nan=True)


@pytest.mark.parametrize(("datatype", "code"), [("FP16", "e"), ("FP64", "d"), ("INT8", "b"), ("UINT16", "H"), ("INT64", "q")])
def test_number_types_are_cast(datatype: str, code: str) -> None:
    """Other number types become float32."""
    raw = struct.pack(f"<2{code}", 3, 100)
    tensor = {"name": "x", "shape": [1, 2], "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    assert parse_infer(head + raw, {HEADER_LENGTH: str(len(head)).encode()}, MANIFEST, "x").matrix.tolist() == [[3.0, 100.0]]


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
        answer = infer_answer(parsed, [0.5], MANIFEST, "p")
        assert parsed.binary is binary
        assert bool(answer.headers) is binary
        text = answer.body[: int(dict(answer.headers)[HEADER_LENGTH])] if binary else answer.body
        shown = json.loads(text)
        assert (shown["id"], shown["parameters"]) == ("i", {"prediction_id": "p"})
        assert shown["outputs"][0].get("data") == (None if binary else [0.5])


def test_an_error_is_one_text() -> None:
    """The protocol's clients show `error` alone, so cause and mend stand there together."""
    assert json.loads(oip_error(BadRequest("cause", mend="mend"))[1]) == {"error": "cause; mend"}
    assert json.loads(oip_error(BadRequest("cause"))[1]) == {"error": "cause"}


def test_compressed_bodies_are_bounded() -> None:
    """A small body that becomes a large one is refused, as is one that is cut short."""
    with pytest.raises(BodyTooLarge):
        parse(zlib.compress(b" " * 50_000_000), content_encoding=b"deflate")
    with pytest.raises(BadRequest, match="cut short"):
        parse(zlib.compress(request([1, 2], 1))[:-3], content_encoding=b"deflate")
