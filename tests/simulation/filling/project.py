"""What the simulated applications publish, and the declarations that come in force one after the other."""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from tidemill.declarations import Event, FeatureView
from tidemill.declarations.aggregates import count, max, min, sum
from tidemill.declarations.project import Project
from tidemill.declarations.written import write_view
from tidemill.kernel.fold import LogEntry, entry_decoder
from tidemill.kernel.view import ViewKernel

T0 = 1_700_000_000_000
"""When histories begin, in epoch ms."""

NAME = "sim"
PAID = Event("paid", {"at": int, "card": str | None, "amount": float, "number": int}, "at", partitions=2)
CARDS = ("a", "b", "c", "d")


class Paid(msgspec.Struct, frozen=True, order=True):
    """An event. `number`: of all events ever, so that each is known when it is met again."""

    at: int
    card: str | None
    amount: float
    number: int

    @property
    def value(self) -> bytes:
        """As it is published."""
        return msgspec.json.encode(self)


def paid(draw: random.Random, number: int, at: int) -> Paid:
    """An event that happened up to an hour before; now and then nobody's. Amounts are whole, so that their sums do not depend on the order."""
    card = None if draw.random() < 0.05 else draw.choice(CARDS)
    return Paid(at - draw.randrange(3_600_000), card, float(draw.randrange(1, 100)), number)


def columns(events: Sequence[Paid]) -> pa.RecordBatch:
    """Events as rows of a file."""
    kinds = {"at": pa.int64(), "card": pa.string(), "amount": pa.float64(), "number": pa.int64()}
    return pa.record_batch([pa.array([getattr(event, name) for event in events], kind) for name, kind in kinds.items()], [*kinds])


def _view(name: str, partitions: int, *features: Any) -> FeatureView:
    return FeatureView(name, PAID, "card", [count(), max("number"), *features], dedupe=0, partitions=partitions)


def _project(*views: FeatureView) -> Project:
    return Project(NAME, {PAID.name: PAID}, {view.name: view for view in views})


STAGES = [
    _project(_view("cards", 2)),
    _project(_view("cards", 2, sum("amount"))),
    _project(_view("cards", 2, sum("amount")), _view("small", 1, min("amount"))),
    _project(_view("cards", 2, max("amount")), _view("small", 1, min("amount"))),
    _project(_view("cards", 3, sum("amount"))),
]
"""What the project's file declares, at one time or another; the first is there from the beginning."""

PLAIN: dict[tuple[str, str | None], Callable[[list[Paid]], float]] = {
    ("count", None): len,
    ("max", "number"): lambda events: builtins.max(event.number for event in events),
    ("sum", "amount"): lambda events: builtins.sum(event.amount for event in events),
    ("min", "amount"): lambda events: builtins.min(event.amount for event in events),
    ("max", "amount"): lambda events: builtins.max(event.amount for event in events),
}
"""What each feature is of some events, by its word and its column."""


class Folding(NamedTuple):
    """What folds a view's log."""

    kernel: ViewKernel
    decode: Callable[[int, bytes | None, bytes | None], LogEntry]


def folding(view: FeatureView) -> Folding:
    """Compiled once for each definition, whatever its version."""
    return _folding(msgspec.json.encode(msgspec.structs.replace(write_view(view), name=view.plain_name)))


_VIEWS = {msgspec.json.encode(write_view(view)): view for project in STAGES for view in project.views.values()}


@cache
def _folding(written: bytes) -> Folding:
    view = _VIEWS[written]
    return Folding(ViewKernel(view), entry_decoder(view))
