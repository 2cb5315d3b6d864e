"""How a model is trained, where the defaults are not wanted. Only Python knows it: it is not in the catalogue, and changes nothing that serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

from tidemill.declarations.checks import Declaration


@dataclass(frozen=True, eq=False)
class Expect(Declaration):
    """What is expected of an input in the training set. `low`, `high`: the bounds of a number, both allowed; `among`: the texts that there
    may be; `missing`: the largest share of rows without a value."""

    _: KW_ONLY
    low: float | None = None
    high: float | None = None
    among: Sequence[str] | None = None
    missing: float = 1.0


@dataclass(frozen=True, eq=False)
class Training(Declaration):
    """`segments`: fields by whose values the quality is shown too: fields that a request gives, or inputs by name; without any, the inputs
    that are few texts. `expect`: what is expected of inputs, by name; a set that is otherwise is refused. `trusted`: inputs that may know
    the label, since they are known when the question is asked."""

    _: KW_ONLY
    segments: Sequence[str] = ()
    expect: Mapping[str, Expect] = field(default_factory=dict)
    trusted: Sequence[str] = ()
