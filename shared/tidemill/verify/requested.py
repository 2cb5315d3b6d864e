"""The values that a question carries as its request, beside those of a training row; and which requests are refused, so that they are no rows.

Written from the documentation, with nothing of the code that builds a model's inputs.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from tidemill.declarations import Model, Request, Tensor
from tidemill.limits import WORDS_BYTES

_ROUNDING = 2.0**-23
_LARGEST = 3.4028234663852886e38
"""The largest number of float32."""


class UnfitValue(Exception):
    """A request with this value is refused."""


def as_requested(request: Request, value: Any) -> Any:
    """What a model gets of a value of an archived event: a number, a text, the numbers of a tensor; None where it is missing. Raises UnfitValue."""
    if isinstance(request, Tensor):
        return _tensor(request.shape, value)
    if value is None:
        return None
    if request.kind == "words" and len(value.encode()) > WORDS_BYTES:
        raise UnfitValue
    if isinstance(value, str):
        return value
    number = float(value)
    if not abs(number) <= _LARGEST:
        raise UnfitValue
    return number


def is_refused(model: Model, given: Sequence[Any]) -> bool:
    """Whether a request with these values, in the order of the model's requests, is refused."""
    try:
        for request, value in zip(model.requests, given, strict=True):
            as_requested(request, value)
    except UnfitValue:
        return True
    return False


def same_request(request: Request, value: Any, trained: Any) -> bool:
    """Whether the cell of a training row is the value of its question."""
    expected = as_requested(request, value)
    if isinstance(request, Tensor):
        return bool(expected == _tensor(request.shape, trained))
    if isinstance(expected, float) and isinstance(trained, float | int):
        return abs(expected - trained) <= abs(expected) * _ROUNDING
    return bool(expected == trained)


def _tensor(shape: Sequence[int], value: Any) -> list[float]:
    """Its numbers as float32, flat, from nested lists as JSON, or the base64 of their bytes. Raises UnfitValue."""
    try:
        if value[:1] == "[":
            numbers = list(_flat(json.loads(value, parse_constant=_refuse), shape))
            data = struct.pack(f"<{len(numbers)}f", *numbers)
        else:
            data = base64.b64decode(value, validate=True)
        found = struct.unpack(f"<{math.prod(shape)}f", data)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise UnfitValue from error
    if not all(map(math.isfinite, found)):
        raise UnfitValue
    return list(found)


def _flat(nested: Any, shape: Sequence[int]) -> Iterator[float]:
    if not shape:
        if isinstance(nested, bool) or not isinstance(nested, int | float):
            raise UnfitValue
        yield float(nested)
        return
    if not isinstance(nested, list) or len(nested) != shape[0]:
        raise UnfitValue
    for part in nested:
        yield from _flat(part, shape[1:])


def _refuse(_: str) -> NoReturn:
    raise UnfitValue
