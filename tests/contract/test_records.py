"""Records and schemas as two readers of the same messages, compared on generated records and on every small mistake."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.payloads import READERS, RECORDS, examples, reads, validator

from tidemill import records
from tidemill.kernel.fences import Fence

STRICT = [*sorted(RECORDS), "fence", "predict_request"]
"""Payloads whose schema says everything that the code checks before it looks at names."""


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that a record uses; numbers are finite, since JSON knows no others."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = parts[1]
        return st.floats(bounds.ge, bounds.le) if parts[0] is float else st.integers(bounds.ge, bounds.le)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, UnionType):
        return st.one_of(*(of_type(part) for part in parts))
    if origin is list:
        return st.lists(of_type(parts[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(of_type(parts[0]), of_type(parts[1]), max_size=3)
    if origin is tuple and parts[-1] is ...:
        return st.lists(of_type(parts[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(of_type(part) for part in parts))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(
            kind, **{name: of_type(hint) for name, hint in get_type_hints(kind, include_extras=True).items() if name[0] != "_"}
        )
    kind = getattr(kind, "__supertype__", kind)  # a NewType is what it is made of
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=8), float: st.floats(allow_nan=False, allow_infinity=False), bool: st.booleans(), NoneType: st.none(),
        Any: st.integers(), msgspec.UnsetType: st.just(msgspec.UNSET),
    }  # fmt: skip
    return simple[kind]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECORDS))
@given(data=st.data())
def test_what_a_record_writes_its_schema_accepts(name: str, data: st.DataObject) -> None:
    """Any record encodes to JSON that is valid by its schema and decodes to an equal record."""
    record = data.draw(of_type(RECORDS[name]))
    written = records.encode(record)
    validator(name).validate(msgspec.json.decode(written))
    assert records.decoder(RECORDS[name]).decode(written) == record


@given(of_type(Fence))
def test_what_a_fence_writes_its_schema_accepts(fence: Fence) -> None:
    """Any fence is valid by its schema."""
    validator("fence").validate(msgspec.json.decode(fence.encode()))


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a JSON value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from paths_of(part, (*path, key))


WRONG: list[Any] = [None, True, 0, 1, -1, 1.5, 2**53 + 1, "", "text", [], {}, ["text"], {"text": 1}]


def mistakes(value: Any) -> Iterator[Any]:
    """The value with any one part replaced, left out, or with one field or element more."""
    for path in paths_of(value):
        for wrong in [*WRONG, ...]:
            changed = {"": copy.deepcopy(value)}
            holder: Any = changed
            for key in ("", *path)[:-1]:
                holder = holder[key]
            last = ("", *path)[-1]
            if wrong is not ...:
                holder[last] = wrong
            elif path:
                del holder[last]
            yield changed[""]
            if wrong is None:
                yield from _more(value, path)


def _more(value: Any, path: tuple[Any, ...]) -> Iterator[Any]:
    changed = copy.deepcopy(value)
    part = changed
    for key in path:
        part = part[key]
    if isinstance(part, dict):
        part["surplus"] = "text"
        yield changed
    elif isinstance(part, list):
        part.append("text")
        yield changed


@pytest.mark.slow
@pytest.mark.parametrize("name", STRICT)
def test_schema_and_code_agree_on_every_small_mistake(name: str) -> None:
    """Each valid example with any one thing wrong is refused by both or taken by both."""
    assert name in READERS
    tried = refused = 0
    for _, path in [item for item in examples("valid") if item[0] == name]:
        for changed in mistakes(msgspec.json.decode(path.read_bytes())):
            accepted = validator(name).is_valid(changed)
            assert reads(name, msgspec.json.encode(changed)) == accepted, changed
            tried, refused = tried + 1, refused + (not accepted)
    assert 0.3 * tried < refused < tried
