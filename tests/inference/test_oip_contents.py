"""Texts and tensors in the protocol's bodies, without a server: BYTES, shapes of several lengths, and the rows that a model gets."""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import demo, trained
from tests.testing.desk import PIXELS, project

import tidemill as tm
from tidemill.declarations.models import InputPlan
from tidemill.errors import BadRequest
from tidemill.models.artifact import inputs_of
from tidemill.models.contents import tensor_content, tensor_numbers
from tidemill.models.inputs import ModelInputs
from tidemill_inference.oip.messages import InferRequest, ModelSpec, metadata, model_spec
from tidemill_inference.oip.rest import HEADER_LENGTH, parse_infer
from tidemill_inference.oip.routes import rows_of

MODEL = project([tm.Words("note"), PIXELS, tm.Request("amount")]).models["urgent"]


@cache
def spec(inputs: InputPlan = MODEL.plan) -> ModelSpec:
    """A model that takes a note, six pixels and an amount."""
    manifest = trained(demo().models["fare"]).manifest
    return model_spec(type(manifest)(**{**as_dict(manifest), "inputs": inputs_of(inputs, {})}), "features", ["v1"])


def as_dict(manifest: Any) -> dict[str, Any]:
    """The fields of a manifest."""
    return {name: getattr(manifest, name) for name in manifest.__struct_fields__}


def tensor(name: str, data: Any, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    """One input of a request."""
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def asked(notes: Any, pixels: Any, amounts: list[float | None]) -> InferRequest:
    """A request in JSON."""
    rows = len(amounts)
    inputs = [
        tensor("pixels", pixels, [rows, 2, 3]), tensor("note", notes, [rows], "BYTES"), tensor("features", amounts, [rows, 1]),
    ]  # fmt: skip
    return parse_infer(json.dumps({"inputs": inputs}).encode(), {}, spec())


def test_clients_see_what_the_model_takes_whole() -> None:
    """A matrix of the other inputs, a text, and a tensor of its shape."""
    assert metadata(spec())["inputs"] == [
        {"name": "features", "datatype": "FP32", "shape": [-1, 1]},
        {"name": "note", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "pixels", "datatype": "FP32", "shape": [-1, 2, 3]},
    ]
    assert metadata(spec())["properties"]["columns"] == "amount"
    assert [one["name"] for one in metadata(spec(MODEL.plan[:1]))["inputs"]] == ["note"]


@given(st.lists(st.tuples(st.text(max_size=9), st.floats(width=32, allow_nan=False, allow_infinity=False)), min_size=1, max_size=4))
def test_json_and_binary_are_the_same_contents(rows: list[tuple[str, float]]) -> None:
    """Texts in UTF-8 after their lengths, numbers as bytes, flat or nested lists."""
    notes, count = [note for note, _ in rows], len(rows)
    numbers = np.array([[[value] * 3] * 2 for _, value in rows], "<f4")
    nested = asked(notes, numbers.tolist(), [1.0] * count)
    assert asked([[note] for note in notes], numbers.reshape(-1).tolist(), [1.0] * count).contents == nested.contents
    texts = b"".join(struct.pack("<I", len(note.encode())) + note.encode() for note in notes)
    parts = [
        ("note", "BYTES", [count, 1], texts),
        ("pixels", "FP32", [count, 2, 3], numbers.tobytes()),
        ("features", "FP64", [count, 1], b"\0" * 8 * count),
    ]
    heads = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}} for name, kind, shape, data in parts
    ]
    head = json.dumps({"inputs": heads}).encode()
    binary = parse_infer(head + b"".join(data for *_, data in parts), {HEADER_LENGTH: b"%d" % len(head)}, spec())
    assert binary.contents == nested.contents
    assert binary.contents["pixels"] == [tensor_content(picture) for picture in numbers]


def test_a_row_has_the_numbers_that_stand_for_its_contents() -> None:
    """In the order of the model's inputs: characters, mean, and the number itself."""
    request = asked(["é", ""], [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]], [7.0, None])
    rows, contents = rows_of(request, ModelInputs(MODEL, {}), "features")
    assert np.array_equal(np.stack(rows), np.array([[1, 3.5, 7], [0, 0, np.nan]], np.float32), equal_nan=True)
    assert [of_row[0] for of_row in contents] == ["é", ""]
    assert tensor_numbers(contents[0][1] or "").tolist() == [1, 2, 3, 4, 5, 6]
    only = ModelInputs(project([tm.Words("note")]).models["urgent"], {})
    rows, contents = rows_of(InferRequest({}, "", {}, {"note": ["ab"]}), only, "features")
    assert ([row.tolist() for row in rows], contents) == ([[2.0]], [("ab",)])


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (tensor("note", [1.0], [1, 1]), "is not BYTES"),
        (tensor("note", ["a", "b"], [1], "BYTES"), "2 texts do not have the shape"),
        (tensor("note", [7], [1], "BYTES"), "texts"),
        (tensor("note", ["x" * 40_000], [1], "BYTES"), "40,000 bytes"),
        (tensor("note", ["x"], [1, 2], "BYTES"), "is not"),
        (tensor("pixels", [[1, 2, 3]], [1, 2, 3]), "not the shape"),
        (tensor("pixels", [[[1, 2, "3"], [4, 5, 6]]], [1, 2, 3]), "is not a number"),
        (tensor("pixels", [1, 2, 3, 4, 5, None], [1, 2, 3]), "elements that are missing"),
        (tensor("pixels", [1, 2, 3, 4, 5, 6], [1, 6]), "is not"),
        (tensor("pixels", [1, 2, 3, 4, 5, 1e300], [1, 2, 3]), "float32 cannot hold"),
    ],
)
def test_what_is_no_content_is_a_bad_request(wrong: dict[str, Any], cause: str) -> None:
    """Each with its cause."""
    good = {
        "note": tensor("note", ["a"], [1], "BYTES"),
        "pixels": tensor("pixels", [0] * 6, [1, 2, 3]),
        "features": tensor("features", [1], [1, 1]),
    }
    with pytest.raises(BadRequest, match=cause):
        parse_infer(json.dumps({"inputs": list((good | {wrong["name"]: wrong}).values())}).encode(), {}, spec())


@pytest.mark.parametrize("data", [b"\x05\0\0\0abc", b"\x01\0", b"\x02\0\0\0\xff\xfe", b""])
def test_bytes_that_are_no_texts_are_a_bad_request(data: bytes) -> None:
    """Cut within a length or a text, not UTF-8, or none at all."""
    head = json.dumps(
        {"inputs": [{"name": "note", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}]}
    ).encode()
    with pytest.raises(BadRequest):
        parse_infer(head + data, {HEADER_LENGTH: b"%d" % len(head)}, spec(MODEL.plan[:1]))
    with pytest.raises(BadRequest, match="no matrix"):
        parse_infer(b"abcd", {HEADER_LENGTH: b"0"}, spec(MODEL.plan[:1]))
