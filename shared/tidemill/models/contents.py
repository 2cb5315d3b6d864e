"""Contents: what a model takes whole beside its matrix of numbers. A content is a text: the words themselves, or the base64 of a tensor."""

from __future__ import annotations

import binascii
import math
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidemill.errors import BadRequest
from tidemill.limits import WORDS_BYTES

Content = str | None
"""A content; None: a text that is missing."""
Contents = Sequence[Content]
"""The contents of a row, in the order of the model's inputs."""

_MEND = "correct the value, or give null where it is not known"
_FAR = 1e300
_FLOAT32 = np.dtype("<f4")


def words(name: str, value: Any) -> str:
    """A free text as a content. `name`: the input in errors. Raises BadRequest: it is no text, or too long."""
    if not isinstance(value, str):
        raise BadRequest(f"entities.{name}: {value!r:.80} is not text", mend=_MEND)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"entities.{name} has half of a character (a lone surrogate)", mend="send well-formed Unicode") from None
    if size > WORDS_BYTES:
        raise BadRequest(f"entities.{name} has {size:,} bytes of UTF-8; {WORDS_BYTES:,} are the most", mend="send the part that matters")
    return value


def tensor(name: str, shape: Sequence[int], value: Any) -> str:
    """A tensor as a content, from nested lists or base64. `name`: the input in errors. Raises BadRequest: it is none, or not of this shape."""
    mend = f"send {'nested lists' if len(shape) > 1 else 'a list'} of shape {list(shape)}, or the base64 of its little-endian float32"
    if value is None:
        raise BadRequest(f"entities.{name} is null, and a tensor is never missing", mend=mend)
    numbers = _decoded(name, shape, value, mend) if isinstance(value, str) else _listed(name, shape, value, mend)
    if not np.isfinite(numbers).all():
        raise BadRequest(f"entities.{name} has an element that is no number of float32", mend=mend)
    return tensor_content(numbers)


def flattened(shape: Sequence[int], value: Any) -> list[float]:
    """The numbers of lists that are nested as a shape; one beyond float64 is infinite. Raises ValueError."""
    flat = [value]
    for length in shape:
        if any(type(part) is not list or len(part) != length for part in flat):
            raise ValueError(f"it has not the shape {list(shape)}")
        flat = [item for part in flat for item in part]
    for item in flat:
        if type(item) not in (int, float):
            raise ValueError(f"the element {item!r:.80} is not a number")
    return [float(item) if abs(item) <= _FAR else math.inf for item in flat]


def tensor_content(numbers: npt.NDArray[Any]) -> str:
    """The content of a tensor's numbers."""
    return b64encode(np.ascontiguousarray(numbers, _FLOAT32).tobytes()).decode()


def tensor_numbers(content: str) -> npt.NDArray[np.float32]:
    """The numbers of a tensor's content, flat."""
    return np.frombuffer(b64decode(content), _FLOAT32)


def measure(kind: str, content: Content) -> float:
    """The number that stands for a content in the matrix and the log: the characters of a text, NaN of none; the mean of a tensor."""
    if content is None:
        return math.nan
    if kind == "words":
        return float(len(content))
    numbers = tensor_numbers(content)
    return math.fsum(numbers.tolist()) / len(numbers)


def _decoded(name: str, shape: Sequence[int], value: str, mend: str) -> npt.NDArray[np.float32]:
    if value[:1] == "[":  # lists, written into a field of an event
        try:
            return _listed(name, shape, msgspec.json.decode(value), mend)
        except msgspec.DecodeError as error:
            raise BadRequest(f"entities.{name} is no JSON: {error}", mend=mend) from None
    try:
        data = b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"entities.{name} is no base64: {error}", mend=mend) from None
    if len(data) != 4 * math.prod(shape):
        raise BadRequest(f"entities.{name} has {len(data):,} bytes; shape {list(shape)} has {4 * math.prod(shape):,}", mend=mend)
    return np.frombuffer(data, _FLOAT32)


def _listed(name: str, shape: Sequence[int], value: Any, mend: str) -> npt.NDArray[np.float32]:
    try:
        flat = flattened(shape, value)
    except ValueError as error:
        raise BadRequest(f"entities.{name}: {error}", mend=mend) from None
    with np.errstate(over="ignore"):
        return np.array(flat, np.float64).astype(_FLOAT32)
