"""Numbers as bytes: the binary tensor extension, which Triton's clients use by default, and the raw contents of gRPC. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.errors import BadRequest
from tidemill_inference.oip.messages import MAX_ROWS, NUMBERS, Cells, ModelSpec, TensorHead


def split(data: bytes, heads: Sequence[TensorHead]) -> list[bytes | None]:
    """The bytes of each input, in order. `data`: all bytes after the JSON. None: no `binary_data_size`. Raises BadRequest."""
    sizes = [head.parameters.get("binary_data_size") for head in heads]
    given = [size for size in sizes if size is not None]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in given) or sum(given) != len(data):
        names = ", ".join(repr(head.name) for head in heads)
        raise BadRequest(f"the inputs {names} declare {given!r:.100} bytes of binary data (binary_data_size); {len(data)} follow the JSON")
    parts: list[bytes | None] = []
    for size in sizes:
        parts.append(None if size is None else data[:size])
        data = data[size or 0 :]
    return parts


def numbers_of(data: bytes, head: TensorHead) -> Any:
    """The numbers of an input. Raises BadRequest when their count does not fit its shape."""
    dtype = np.dtype(NUMBERS[head.datatype])
    if len(data) != math.prod(head.shape) * dtype.itemsize:
        raise BadRequest(f"input {head.name!r}: {len(data)} bytes are not {head.datatype} of shape {list(head.shape)}")
    return np.frombuffer(data, dtype)


def texts_of(data: bytes, head: TensorHead) -> list[str]:
    """The texts of an input, each after its length in four bytes. Raises BadRequest."""
    found, at = list[str](), 0
    try:
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            at += 4 + size
            if at > len(data):
                raise ValueError("it ends within a text")
            found.append(data[at - size : at].decode())
    except (struct.error, ValueError) as error:
        raise BadRequest(
            f"input {head.name!r}: its bytes are no texts: {error}", mend="write each text in UTF-8 after its length"
        ) from None
    if len(found) != head.shape[0]:
        raise BadRequest(f"input {head.name!r}: {len(found)} texts do not have the shape {list(head.shape)}")
    return found


def raw_head(data: bytes, spec: ModelSpec) -> TensorHead:
    """The input of a request that has only float32 numbers. Raises BadRequest when the model has several inputs, or they are no rows."""
    if len(spec.inputs) != 1:
        raise BadRequest(f"the model has {len(spec.inputs)} inputs", mend="send a request with a JSON part")
    (item,) = spec.inputs
    if item.datatype == "BYTES" or item.shape:
        raise BadRequest(f"the model takes {item.name!r}, which is no matrix", mend="send a request with a JSON part")
    rows = len(data) // (4 * item.columns)
    if not 0 < rows <= MAX_ROWS:
        raise BadRequest(f"input {item.name!r}: {len(data)} bytes are not 1 to {MAX_ROWS} rows of {item.columns} FP32")
    return TensorHead(item.name, "FP32", [rows, item.columns], {})


def encode_cells(rows: Cells) -> bytes:
    """Numbers as FP32; texts as BYTES, each after its length in four bytes."""
    if not isinstance(rows[0][0], str):
        return np.array(rows, "<f4").tobytes()
    texts = [str(cell).encode() for row in rows for cell in row]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
