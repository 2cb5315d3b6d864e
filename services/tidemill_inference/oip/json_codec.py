"""The protocol's messages as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from tidemill.errors import BadRequest
from tidemill.models.contents import flattened
from tidemill.runtime.routes import decode_body
from tidemill_inference.oip.messages import Asked, InferAnswer, TensorHead

EXAMPLE = 'send {"inputs": [{"name": ..., "shape": [rows, columns], "datatype": "FP32", "data": [...]}]}'


class SentTensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}

    @property
    def head(self) -> TensorHead:
        """The input without its numbers."""
        return TensorHead(self.name, self.datatype, self.shape, self.parameters)


class RequestedOutput(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct):
    """The JSON part of POST /v2/models/{model}/infer. Unknown keys are ignored, as the protocol requires."""

    inputs: list[SentTensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[RequestedOutput] | None = None

    @property
    def asked(self) -> list[Asked]:
        """The outputs asked for."""
        return [Asked(output.name, output.parameters) for output in self.outputs or ()]


_decode = msgspec.json.Decoder(InferBody).decode
_flat = msgspec.json.Decoder(list[float | None]).decode
_nested = msgspec.json.Decoder(list[list[float | None]]).decode
_texts = msgspec.json.Decoder(list[str | list[str]]).decode
_any = msgspec.json.Decoder(list[Any]).decode
_encode = msgspec.json.Encoder().encode


def decode_infer(text: bytes) -> InferBody:
    """A request's JSON part. Raises BadRequest."""
    return decode_body(_decode, text, EXAMPLE)


def numbers_of(tensor: SentTensor) -> Any:
    """The numbers of an input as float64, NaN for null. `data` is one list, or one list for each row (of a tensor nested as its shape). Raises
    BadRequest."""
    if not isinstance(tensor.data, msgspec.Raw):
        raise BadRequest(f"input {tensor.name!r} has no data", mend=EXAMPLE)
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    text = bytes(tensor.data)
    if len(tensor.shape) > 2 and text.removeprefix(b"[").lstrip()[:1] == b"[":
        return _nested_numbers(tensor, text)
    mend = f"give numbers or null: a list of {rows * columns}, or {rows} lists of {columns}"
    flat: list[float | None]
    if text.removeprefix(b"[").lstrip()[:1] == b"[":
        nested = decode_body(_nested, text, mend)
        if len(nested) != rows or any(len(row) != columns for row in nested):
            raise BadRequest(f"input {tensor.name!r}: the data has not the shape {tensor.shape}", mend=mend)
        flat = [value for row in nested for value in row]
    else:
        flat = decode_body(_flat, text, mend)
        if len(flat) != rows * columns:
            raise BadRequest(f"input {tensor.name!r}: {len(flat)} values do not have the shape {tensor.shape}", mend=mend)
    return np.array([math.nan if value is None else value for value in flat], np.float64)


def texts_of(tensor: SentTensor) -> list[str]:
    """The texts of an input: one list, or a list of one text for each row. Raises BadRequest."""
    if not isinstance(tensor.data, msgspec.Raw):
        raise BadRequest(f"input {tensor.name!r} has no data", mend=EXAMPLE)
    found = decode_body(_texts, bytes(tensor.data), f"give a list of {tensor.shape[0]} texts")
    flat = [text for row in found for text in (row if isinstance(row, list) else [row])]
    if len(flat) != tensor.shape[0]:
        raise BadRequest(f"input {tensor.name!r}: {len(flat)} texts do not have the shape {tensor.shape}")
    return flat


def _nested_numbers(tensor: SentTensor, text: bytes) -> Any:
    mend = f"give lists that are nested as the shape {tensor.shape}"
    try:
        return np.array(flattened(tensor.shape, decode_body(_any, text, mend)), np.float64)
    except ValueError as error:
        raise BadRequest(f"input {tensor.name!r}: {error}", mend=mend) from None


def encode_answer(answer: InferAnswer, binary_bytes: Mapping[str, int]) -> bytes:
    """The JSON of an answer. `binary_bytes`: the size of each output that follows it in binary; the others are written here."""
    outputs = []
    for name, rows in answer.outputs.items():
        flat: list[float | str] = [cell for row in rows for cell in row]
        datatype = "BYTES" if isinstance(rows[0][0], str) else "FP32"
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])]}
        tensor |= {"parameters": {"binary_data_size": binary_bytes[name]}} if name in binary_bytes else {"data": flat}
        outputs.append(tensor)
    shown = {"model_name": answer.model, "model_version": answer.version, "id": answer.id}
    return _encode(shown | {"parameters": {"prediction_id": answer.prediction_id}, "outputs": outputs})
