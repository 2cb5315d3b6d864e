"""The Open Inference Protocol, version 2: what an infer request says and how its answer is written, as JSON or binary tensors. Pure.

https://github.com/kserve/open-inference-protocol, and the binary tensor extension of Triton that its client uses by default.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tidemill.errors import BadRequest, BodyTooLarge
from tidemill.models.artifact import Manifest
from tidemill.models.inputs import Vector
from tidemill.runtime.http import error_answer
from tidemill.runtime.routes import MAX_BODY_BYTES, Answer, decode_body

HEADER_LENGTH = b"inference-header-content-length"
MAX_ROWS = 5_000
_TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{name}{8 * size}": f"<{code}{size}" for name, code in (("INT", "i"), ("UINT", "u")) for size in (1, 2, 4, 8)
}
_EXAMPLE = 'send {"inputs": [{"name": ..., "shape": [rows, columns], "datatype": "FP32", "data": [...]}]}'


class Tensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] = {}


class RequestedOutput(msgspec.Struct):
    """One output that a request asks for."""

    name: str
    parameters: dict[str, Any] = {}


class InferBody(msgspec.Struct):
    """The JSON part of POST /v2/models/{model}/infer. Keys that are not known are ignored, as the protocol wants."""

    inputs: list[Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[RequestedOutput] | None = None


class InferRequest(NamedTuple):
    """A checked request: float32 of shape (rows, columns), the client's id, and whether the answer's tensor is binary."""

    matrix: Vector
    id: str
    binary: bool


_decode = msgspec.json.Decoder(InferBody).decode
_flat = msgspec.json.Decoder(list[float | None]).decode
_nested = msgspec.json.Decoder(list[list[float | None]]).decode
_encode = msgspec.json.Encoder().encode


def parse_infer(body: bytes, headers: Mapping[bytes, bytes], manifest: Manifest, input_name: str) -> InferRequest:
    """A request's matrix for a model with one input. Raises BadRequest naming what does not fit, BodyTooLarge."""
    body = _decompressed(body, headers.get(b"content-encoding", b"identity"))
    if not body:
        raise BadRequest("the body is empty", mend=_EXAMPLE)
    columns = len(manifest.inputs)
    length = _header_length(headers, body)
    if length == 0:  # a raw request: nothing but the tensor
        matrix = _from_bytes(body, input_name, "FP32", [len(body) // (4 * columns), columns])
        return InferRequest(_finite(matrix, input_name), "", binary=True)
    request = decode_body(_decode, body if length is None else body[:length], _EXAMPLE)
    tensor = _only_input(request, input_name, columns)
    binary = b"" if length is None else body[length:]
    declared = tensor.parameters.get("binary_data_size")
    if declared is None:
        if binary:
            raise BadRequest(f"{len(binary)} bytes follow the JSON, but input {input_name!r} has no binary_data_size")
        matrix = _from_json(tensor)
    elif isinstance(tensor.data, msgspec.Raw) or declared != len(binary):
        raise BadRequest(
            f"input {input_name!r} declares {declared} bytes of binary data and no `data`; {len(binary)} bytes follow the JSON"
        )
    else:
        matrix = _from_bytes(binary, input_name, tensor.datatype, tensor.shape)
    return InferRequest(_finite(matrix, input_name), request.id, _wants_binary(request, manifest.output))


def infer_answer(request: InferRequest, outputs: list[float], manifest: Manifest, prediction_id: str) -> Answer:
    """The answer for outputs of a request's rows. `prediction_id`: that of the first row in the prediction log."""
    tensor: dict[str, Any] = {"name": manifest.output, "datatype": "FP32", "shape": [len(outputs), 1]}
    raw = np.array(outputs, "<f4").tobytes() if request.binary else b""
    tensor |= {"parameters": {"binary_data_size": len(raw)}} if request.binary else {"data": outputs}
    answer = {"model_name": manifest.model, "model_version": manifest.version, "id": request.id}
    text = _encode(answer | {"parameters": {"prediction_id": prediction_id}, "outputs": [tensor]})
    if not request.binary:
        return Answer(text)
    return Answer(text + raw, content_type=b"application/octet-stream", headers=[(HEADER_LENGTH, b"%d" % len(text))])


def metadata(manifest: Manifest, input_name: str) -> dict[str, Any]:
    """The metadata of a model; -1 is any number of rows."""
    return {
        "name": manifest.model,
        "versions": [manifest.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": input_name, "datatype": "FP32", "shape": [-1, len(manifest.inputs)]}],
        "outputs": [{"name": manifest.output, "datatype": "FP32", "shape": [-1, 1]}],
        "properties": {"columns": ",".join(item.name for item in manifest.inputs)},
    }


def oip_error(error: Exception) -> tuple[int, bytes]:
    """Status and body of an error, with cause and mend in the one text that the protocol's clients show."""
    status, body = error_answer(error)
    shown: dict[str, str] = msgspec.json.decode(body)
    return status, _encode({"error": "; ".join(text for text in (shown["error"], shown["mend"]) if text)})


def _decompressed(body: bytes, encoding: bytes) -> bytes:
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise BadRequest(f"content-encoding {encoding.decode('latin-1')!r} is not known", mend="use gzip, deflate or none")
    stream = zlib.decompressobj(wbits=47)  # 32 + 15: zlib or gzip, whichever it is
    try:
        plain = stream.decompress(body, MAX_BODY_BYTES)
    except zlib.error as error:
        raise BadRequest(f"the body cannot be decompressed: {error}") from None
    if stream.unconsumed_tail:
        raise BodyTooLarge(MAX_BODY_BYTES)
    if not stream.eof:
        raise BadRequest("the compressed body is cut short")
    return plain


def _header_length(headers: Mapping[bytes, bytes], body: bytes) -> int | None:
    text = headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdigit() or int(text) > len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {text.decode('latin-1')!r}, the body has {len(body)} bytes")
    return int(text)


def _only_input(request: InferBody, name: str, columns: int) -> Tensor:
    names = [tensor.name for tensor in request.inputs]
    if names != [name]:
        raise BadRequest(f"the inputs are {names!r:.200}; the model has one, {name!r}")
    (tensor,) = request.inputs
    if tensor.datatype not in _TYPES:
        raise BadRequest(f"input {name!r}: datatype {tensor.datatype!r:.50} is not a number's", mend=f"use one of {', '.join(_TYPES)}")
    if len(tensor.shape) != 2 or tensor.shape[1] != columns or not 0 < tensor.shape[0] <= MAX_ROWS:
        raise BadRequest(f"input {name!r}: shape {tensor.shape!r:.100} is not [1 to {MAX_ROWS}, {columns}]")
    if any(key.startswith("shared_memory") for key in tensor.parameters):
        raise BadRequest(f"input {name!r}: shared memory is not offered", mend="send the data")
    return tensor


def _from_json(tensor: Tensor) -> Vector:
    if not isinstance(tensor.data, msgspec.Raw):
        raise BadRequest(f"input {tensor.name!r} has no data", mend=_EXAMPLE)
    rows, columns = tensor.shape
    text = bytes(tensor.data)
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
    values = np.array([math.nan if value is None else value for value in flat], np.float64)
    return _to_float32(values).reshape(rows, columns)


def _from_bytes(data: bytes, name: str, datatype: str, shape: list[int]) -> Vector:
    dtype = np.dtype(_TYPES[datatype])
    if len(data) != math.prod(shape) * dtype.itemsize or not 0 < shape[0] <= MAX_ROWS:
        raise BadRequest(f"input {name!r}: {len(data)} bytes are not {datatype} of shape {shape}")
    return _to_float32(np.frombuffer(data, dtype)).reshape(shape)


def _to_float32(values: Any) -> Vector:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, np.float32)


def _finite(matrix: Vector, name: str) -> Vector:
    if np.isinf(matrix).any():
        raise BadRequest(
            f"input {name!r} has values that float32 cannot hold", mend="give null (JSON) or NaN (binary) for what is not known"
        )
    return matrix


def _wants_binary(request: InferBody, output: str) -> bool:
    """Whether the one output is to be binary. Raises BadRequest for an output that the model has not, or a form that is not offered."""
    default = request.parameters.get("binary_data_output", False)
    for asked in request.outputs or ():
        if asked.name != output:
            raise BadRequest(f"the model has no output {asked.name!r:.100}", mend=f"ask for {output!r}")
        offered = {key for key in asked.parameters if key == "classification" or key.startswith("shared_memory")}
        if offered:
            raise BadRequest(f"output {output!r}: {', '.join(sorted(offered))} is not offered", mend="ask for the plain tensor")
        default = asked.parameters.get("binary_data", default)
    return default is True
