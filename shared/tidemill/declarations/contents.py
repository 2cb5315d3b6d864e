"""Inputs that a model takes whole, beside its matrix of numbers: the words of a free text, and tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tidemill.declarations.models import Request
from tidemill.errors import DeclarationError
from tidemill.limits import TENSOR_ELEMENTS


@dataclass(frozen=True, eq=False)
class Words(Request):
    """A free text of the request, such as the words of a ticket; its field in the event is a `str`. The pipeline gets the text itself, and "" where
    it is null. It has at most 32 KiB of UTF-8."""

    type: Any = field(default=str, init=False)

    @property
    def kind(self) -> Literal["words"]:
        """As a manifest calls it."""
        return "words"


@dataclass(frozen=True, eq=False)
class Tensor(Request):
    """Numbers of a fixed shape that come with the request, such as pixels or an embedding: nested lists, or the base64 of little-endian float32, which
    is also what its field in the event holds, a `str`. It is never missing."""

    type: Any = field(default=str, init=False)
    shape: Sequence[int] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.shape, Sequence):
            object.__setattr__(self, "shape", tuple(self.shape))
        shape = self.shape
        if (
            not isinstance(shape, tuple)
            or not shape
            or not all(type(length) is int and length > 0 for length in shape)
            or math.prod(shape) > TENSOR_ELEMENTS
        ):
            raise DeclarationError(
                f"Tensor {self.name!r}: {shape!r} is no shape of 1 to {TENSOR_ELEMENTS:,} elements",
                where=self.declared_at,
                field="shape",
                mend="write whole numbers above 0, such as shape=(28, 28)",
            )

    @property
    def kind(self) -> Literal["tensor"]:
        """As a manifest calls it."""
        return "tensor"
