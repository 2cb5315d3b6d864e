"""The protocol over HTTP: the JSON part and the binary part of a body, and the shape of errors. Independent of the server."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from tidemill.errors import BadRequest
from tidemill.models.contents import tensor_content, words
from tidemill.models.inputs import Vector
from tidemill.runtime.http import error_answer
from tidemill.runtime.routes import Answer
from tidemill_inference.oip import binary_codec, json_codec
from tidemill_inference.oip.messages import InferAnswer, InferRequest, ModelSpec, TensorMetadata, check_inputs, matrix_of, wants_binary

HEADER_LENGTH = b"inference-header-content-length"


def parse_infer(body: bytes, headers: Mapping[bytes, bytes], spec: ModelSpec) -> InferRequest:
    """The checked request in a body. Raises BadRequest with the reason."""
    if not body:
        raise BadRequest("the body is empty", mend=json_codec.EXAMPLE)
    length = _header_length(headers, body)
    if length == 0:  # a raw request: the tensor only
        head = binary_codec.raw_head(body, spec)
        matrix = matrix_of(head.name, binary_codec.numbers_of(body, head), head.shape)
        return InferRequest({head.name: matrix}, "", {item.name: True for item in spec.outputs})
    request = json_codec.decode_infer(body if length is None else body[:length])
    heads = [tensor.head for tensor in request.inputs]
    check_inputs(heads, spec)
    parts = binary_codec.split(b"" if length is None else body[length:], heads)
    whole = {item.name: item for item in spec.inputs if item.datatype == "BYTES" or item.shape}
    pairs = list(zip(request.inputs, parts, strict=True))
    inputs = {tensor.name: _matrix(tensor, part) for tensor, part in pairs if tensor.name not in whole}
    contents = {tensor.name: contents_of(tensor, part, whole[tensor.name]) for tensor, part in pairs if tensor.name in whole}
    return InferRequest(inputs, request.id, wants_binary(request.asked, request.parameters, spec), contents)


def infer_answer(request: InferRequest, answer: InferAnswer) -> Answer:
    """The HTTP answer: the JSON, then the binary outputs in the same order."""
    answer = answer._replace(outputs={name: answer.outputs[name] for name in request.binary})
    raw = {name: binary_codec.encode_cells(answer.outputs[name]) for name, binary in request.binary.items() if binary}
    text = json_codec.encode_answer(answer, {name: len(data) for name, data in raw.items()})
    if not raw:
        return Answer(text)
    headers = [(HEADER_LENGTH, b"%d" % len(text))]
    return Answer(b"".join([text, *raw.values()]), content_type=b"application/octet-stream", headers=headers)


def oip_error(error: Exception) -> tuple[int, bytes]:
    """Status and body of an error, with cause and mend in one text, the one that the protocol's clients show."""
    status, body = error_answer(error)
    shown: dict[str, str] = msgspec.json.decode(body)
    return status, msgspec.json.encode({"error": "; ".join(text for text in (shown["error"], shown["mend"]) if text)})


def contents_of(tensor: json_codec.SentTensor, part: bytes | None, item: TensorMetadata) -> list[str]:
    """The content of each row of an input that the model takes whole. Raises BadRequest."""
    if item.datatype != "BYTES":
        rows = _matrix(tensor, part)
        if np.isnan(rows).any():
            raise BadRequest(f"input {tensor.name!r} has elements that are missing", mend="give a number for each element")
        return [tensor_content(row) for row in rows]
    if part is not None and isinstance(tensor.data, msgspec.Raw):
        raise BadRequest(f"input {tensor.name!r} has both `data` and binary data")
    texts = json_codec.texts_of(tensor) if part is None else binary_codec.texts_of(part, tensor.head)
    return [words(tensor.name, text) for text in texts]


def _matrix(tensor: json_codec.SentTensor, part: bytes | None) -> Vector:
    if part is None:
        return matrix_of(tensor.name, json_codec.numbers_of(tensor), tensor.shape)
    if isinstance(tensor.data, msgspec.Raw):
        raise BadRequest(f"input {tensor.name!r} has both `data` and binary data")
    return matrix_of(tensor.name, binary_codec.numbers_of(part, tensor.head), tensor.shape)


def _header_length(headers: Mapping[bytes, bytes], body: bytes) -> int | None:
    text = headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not text.isdigit() or int(text) > len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {text.decode('latin-1')!r}, the body has {len(body)} bytes")
    return int(text)
