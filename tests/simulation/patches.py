"""Putting simulated parts in the place of real ones, for as long as histories run: what production modules call is looked up in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import structlog

from tidemill.kafka import reader
from tidemill.offline import delta
from tidemill_features import delivery, worker

from tests.simulation.filling import patches as filling  # isort: skip
from tests.simulation.lake import SimConsumer, Table  # isort: skip
from tests.simulation.project import DECODE, KERNEL  # isort: skip

_QUIET: Any = structlog.make_filtering_bound_logger(50)(None, [], {})  # type: ignore[call-arg]


@contextlib.contextmanager
def patched(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """Set attributes (owner, name, value), and set them back."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def _drop_torn_commit(table: Any) -> bool:
    """Tables of the archive, which are known by name, are never torn."""
    return isinstance(table, Table) and table.drop_torn()


def _explain_torn(table: Any) -> None:
    if isinstance(table, Table):
        table.explain_torn()


def simulated() -> contextlib.AbstractContextManager[None]:
    """Small slices, a simulated consumer and disk for the mirror, and nobody reads the logs."""
    return patched(
        (delivery, "SLICE_RECORDS", 3),
        (delivery, "log", _QUIET),
        (worker, "log", _QUIET),
        (worker, "ViewKernel", lambda view: KERNEL),  # compiled once, not for every worker that starts
        (worker, "entry_decoder", lambda view: partial(DECODE)),
        (worker, "_ViewMetrics", cache(worker._ViewMetrics)),
        (delta, "log", _QUIET),
        (delta, "FILES_PER_MERGE", 7),
        (delta, "drop_torn_commit", _drop_torn_commit),
        (delta, "explain_torn", _explain_torn),
        (reader, "consumer", SimConsumer),
        *filling.changes(_QUIET),
    )
