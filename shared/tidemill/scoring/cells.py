"""The values of a table's cells as a request has them, or as a model takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tidemill.errors import BadRequest
from tidemill.models.artifact import ModelInput
from tidemill.models.inputs import FLOAT32_MAX
from tidemill.timestamps import parse_time_ms

_TRUTHS = {"true": True, "false": False}
_WHOLE = re.compile(r"[+-]?[0-9]+")


def request_value(value: Any, kind: type, *, from_text: bool) -> Any:
    """A cell as the field of a request. What cannot be of its type stays as it is: a request with it is refused for it."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # a column of whole numbers with gaps is one of floats
    if not from_text or not isinstance(value, str) or kind is str:
        return value
    with suppress(ValueError):
        if kind is bool:
            return _TRUTHS.get(value.lower(), value)
        number = int(value) if _WHOLE.fullmatch(value) else float(value)
        return None if math.isnan(number) else number
    return value


def ready_input(item: ModelInput, numbers: Mapping[Any, float], value: Any, *, from_text: bool) -> float:
    """A cell as the model takes it: NaN where there is no value, a text as its number, by `numbers`. Raises BadRequest for what is no such
    input."""
    if value is None:
        return math.nan
    if item.is_category:
        if not isinstance(value, str):
            raise BadRequest(f"{item.name}: {value!r:.80} is not text")
        return numbers[value]
    if from_text and isinstance(value, str):
        value = request_value(_TRUTHS.get(value.lower(), value), float, from_text=True)
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise BadRequest(f"{item.name}: {value!r:.80} is not a number")
    if abs(value) <= FLOAT32_MAX:
        return float(value)
    if item.is_feature:
        return math.nan  # as a feature that is served
    raise BadRequest(f"{item.name}: {value!r:.80} is not a number that float32 can hold")


def moment_of(value: Any) -> int:
    """A cell as a moment in epoch ms: a whole number, also as text, or RFC 3339. Raises ValueError."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(
            f"{value!r:.80} is not a moment; write RFC 3339 with an offset, such as 2026-01-31T12:00:00Z, or epoch milliseconds"
        )
    return parse_time_ms(value)
