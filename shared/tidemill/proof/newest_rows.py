"""The part of an entity that is verified when it has too many rows: those that became known lately, and the windows that these alone decide.

Rows of a log and archived events say the same moment of knowing, so both are cut there. An event that is left out counts at that moment at the
latest (an event that waits: so much later as it may lie ahead), so a window that begins afterwards holds none of them. Between the cut and the
first window lie as many rows as ids that an entity remembers, and all that may be a second publication of an event that was left out.
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
from tidemill.kernel.recent import kept_ms
from tidemill.verify.sql import LOG_TIME

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

    `rows`: `key` and `known` of all of their rows, and `LOG_TIME` if the view remembers ids for a time.
    """
    found, large, left = dict[str, Cut](), dict[str, pa.Table](), most
    for entity in entities:
        own = rows.filter(pc.and_(pc.equal(rows["key"], entity), pc.is_valid(rows["known"]))).sort_by("known")
        if len(own) <= left:
            found[entity], left = WHOLE, left - len(own)
        else:
            large[entity] = own
    return found | {entity: _cut(view, own, most // len(large)) for entity, own in large.items()}


def _cut(view: FeatureView, own: pa.Table, most: int) -> Cut:
    """At most `most` rows; of one moment all or none."""
    if len(own) <= most:
        return WHOLE
    known_ms: Ints = own["known"].to_numpy()
    at = int(known_ms[-most - 1]) + 1
    first = int(np.searchsorted(known_ms, at))
    kept = known_ms[first:]
    from_ms = int(kept[view.last_ids]) + 1 if len(kept) > view.last_ids else _NEVER_MS
    if view.dedupe_ms is not None:
        log_ms: Ints = own[LOG_TIME].to_numpy()
        near = kept[log_ms[first:] < log_ms[:first].max() + kept_ms(view.dedupe_ms)]
        from_ms = max(from_ms, int(near.max(initial=at)) + 1)
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
