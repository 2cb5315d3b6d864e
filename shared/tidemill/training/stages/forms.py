"""How the output of a stage is kept in a file."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

T = TypeVar("T")


class Form(NamedTuple, Generic[T]):
    """`write` gives None for an output that cannot be kept; it is made again when the run goes on."""

    ending: str
    write: Callable[[T], bytes | None]
    read: Callable[[bytes], T]


def as_json(kind: type[T]) -> Form[T]:
    """A struct of msgspec as JSON. Mappings keep their order: what is read must be what was made."""
    return Form("json", lambda value: msgspec.json.format(msgspec.json.encode(value), indent=1), msgspec.json.Decoder(kind).decode)


def _pickled(value: Any) -> bytes | None:
    """A project's own estimator may hold what cannot be pickled: a function without a name, an open file."""
    try:
        return pickle.dumps(value, protocol=5)
    except MemoryError:
        raise
    except Exception:  # of whatever the project's objects raise
        return None


AS_PICKLE: Form[Any] = Form("pickle", _pickled, pickle.loads)
"""Any object; the file is read on the machine, and by the user, that wrote it."""


def as_msgpack(kind: type[T]) -> Form[T]:
    """A struct or a named tuple of msgspec, with bytes in it."""
    return Form("msgpack", msgspec.msgpack.encode, msgspec.msgpack.Decoder(kind).decode)


AS_TEXT: Form[str] = Form("html", str.encode, bytes.decode)
"""A text in UTF-8."""
