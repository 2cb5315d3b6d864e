"""Kinds of slots: each says of itself what the kernel needs, and says it truly."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tests.kernel.streams import FEW
from tests.oracles import aggregation_kinds

from tidemill.declarations.slots import SIDE_BYTES, FloatKind, SideKind

KINDS = sorted(
    {slot.kind for kind in aggregation_kinds() for slot in kind(column="x", **FEW.get(kind, {})).slots}, key=lambda kind: kind.name
)
FLOATS = [kind for kind in KINDS if isinstance(kind, FloatKind)]
SIDES = [kind for kind in KINDS if isinstance(kind, SideKind)]


def test_there_are_kinds_of_both_sorts() -> None:
    """Of one number, of several, and of bytes beside them; no two share a word, which fingerprints tell them apart by."""
    assert {len(kind.empty) for kind in FLOATS} == {1, 2}
    assert len(SIDES) >= 2
    assert len({kind.word for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", FLOATS, ids=lambda kind: kind.name)
def test_the_source_looks_at_what_the_kind_says(kind: FloatKind) -> None:
    """The value occurs where it reads numbers, the time where it reads times; places named are its own or of kinds needed."""
    reads = set(re.findall(r"\b[tx]\b", kind.fold))
    assert ("x" in reads, "t" in reads) == ("number" in kind.reads, "time" in kind.reads)
    own = {"i", *(f"i{k}" for k in range(1, len(kind.empty)))}
    assert set(re.findall(r"{(\w+)}", kind.fold)) <= own | {need.word for need in kind.needs}


@pytest.mark.parametrize("kind", FLOATS, ids=lambda kind: kind.name)
def test_what_a_kind_needs_is_folded_in_its_order(kind: FloatKind) -> None:
    """A kind that reads another's updated number stands after it, one that reads the number before the event stands before it."""
    for need in kind.needs:
        assert (need.rank < kind.rank) == (f"s{{{need.word}}}" in kind.fold)


@pytest.mark.parametrize("kind", FLOATS, ids=lambda kind: kind.name)
def test_a_kind_merges_in_one_way(kind: FloatKind) -> None:
    """By a reduction or by a method of its own."""
    assert (kind.ufunc is None) == (type(kind).merge is not FloatKind.merge)
    if kind.ufunc is not None:
        assert hasattr(np, kind.ufunc)
        with pytest.raises(NotImplementedError, match="neither ufunc nor merge"):
            kind.merge(np.empty((0, 1)), {}, [])


@pytest.mark.parametrize("kind", SIDES, ids=lambda kind: kind.name)
def test_side_values_are_bounded(kind: SideKind) -> None:
    """However many events come, late or in order, a tile takes no more than the kind says; of nothing there is nothing."""
    held = kind.merge([])
    assert held == b""
    for i in range(600):
        held = kind.add(held, i * 7919 % 600, float(i))
        assert len(held) <= kind.most_bytes <= SIDE_BYTES
    assert len(kind.merge([held] * 5)) <= kind.most_bytes
    assert kind.show(held)


def test_a_kind_that_sees_no_value_says_so() -> None:
    """Counts and times take columns of any type."""
    assert {kind.word for kind in KINDS if not kind.sees_value} == {"n", "last_time"}
