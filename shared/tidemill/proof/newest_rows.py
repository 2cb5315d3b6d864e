"""The part of an entity that is verified when it has too many rows: those that became known lately, and the windows that these alone decide.

Rows of a log and archived events say the same moment of knowing, so both are cut there. An event that is left out counts at that moment at the
latest (an event that waits: so much later as it may lie ahead), so a window that begins afterwards holds none of them. Between the cut and the
first window lie as many rows as ids that an entity remembers, and the time for which ids are remembered, so that a second publication of an
event that was left out is none of the window's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.kernel.recent import Recent

_NEVER_MS = 2**62
T = TypeVar("T")
Ints = npt.NDArray[np.int64]


class Cut(NamedTuple):
    """Rows known before `known_ms` are left out; windows that begin at `from_ms` or later hold none of them."""

    known_ms: int
    from_ms: int


WHOLE = Cut(0, 0)


def cuts(view: FeatureView, rows: pa.Table, entities: Sequence[str], most: int) -> dict[str, Cut]:
    """How each entity is cut, so that all have about `most` rows: the first ones that fit are whole, and the others share as many again.

    `rows`: `key` and `known` of all of their rows.
    """
    found, large, left = dict[str, Cut](), dict[str, Ints](), most
    for entity in entities:
        known_ms = np.sort(rows.filter(pc.equal(rows["key"], entity))["known"].drop_null().to_numpy())
        if len(known_ms) <= left:
            found[entity], left = WHOLE, left - len(known_ms)
        else:
            large[entity] = known_ms
    return found | {entity: _cut(view, known_ms, most // len(large)) for entity, known_ms in large.items()}


def _cut(view: FeatureView, known_ms: Ints, most: int) -> Cut:
    """At most `most` rows; of one moment all or none."""
    if len(known_ms) <= most:
        return WHOLE
    at = int(known_ms[-most - 1]) + 1
    kept = known_ms[np.searchsorted(known_ms, at) :]
    from_ms = int(kept[view.last_ids]) + 1 if len(kept) > view.last_ids else _NEVER_MS
    if view.dedupe_ms is not None:
        from_ms = max(from_ms, at + Recent(view.dedupe_ms).kept_ms)
    return Cut(at, from_ms + (view.ahead_ms or 0))


def by_cut(found: Mapping[str, Cut]) -> dict[int, list[str]]:
    """The entities that are cut at one moment, by this moment."""
    together = defaultdict[int, list[str]](list)
    for entity, cut in found.items():
        together[cut.known_ms].append(entity)
    return together


def decided(view: FeatureView, values: Mapping[str, T], at_ms: int, cut: Cut) -> dict[str, T]:
    """The features that the rows after a cut decide at a moment."""
    if cut == WHOLE:
        return dict(values)
    windows = {feature.name: feature.window for feature in view.served}
    return {
        name: value
        for name, value in values.items()
        if windows[name].bounded and windows[name].grid.start_ms(windows[name].at(at_ms, at_ms, 0)[0]) >= cut.from_ms
    }
