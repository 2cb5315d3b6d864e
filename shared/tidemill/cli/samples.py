"""What a changed view would give some entities, beside what it gives now: both computed from the archive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import event_folder
from tidemill.archive.reading import read_events
from tidemill.archive.view_rows import entity_texts, view_rows
from tidemill.cli.showing import number
from tidemill.declarations import FeatureView
from tidemill.offline.store import OfflineStore
from tidemill.training.asked import Questions, features_of

ENTITIES, FEATURES = 3, 6
MOST_EVENTS = 1_000_000
"""An archive with more events is not read only to show something."""


def samples(store: OfflineStore, old: FeatureView, new: FeatureView, time_ms: int) -> Iterator[str]:
    """Lines about the entities of the newest archived events. Raises OfflineUnavailable."""
    snapshot = store.find(event_folder(new.source.name))
    if snapshot is None or not snapshot.rows:
        return
    if snapshot.rows > MOST_EVENTS:
        yield f"no sample values: {snapshot.rows:,} events are too many to compute them in passing"
        return
    events = read_events(store, new.source, new.key.fields)
    keys = pc.unique(entity_texts(new.key.fields, events).drop_null()[::-1])[:ENTITIES]
    before, after = _values(store, old, keys, time_ms), _values(store, new, keys, time_ms)
    for i, key in enumerate(keys.to_pylist()):
        differing = [
            f"{name} {_shown(before, name, i)} -> {_shown(after, name, i)}"
            for name in dict.fromkeys([*after, *before])
            if _shown(before, name, i) != _shown(after, name, i)
        ]
        more = [f"{len(differing) - FEATURES} more"] if len(differing) > FEATURES else []
        yield f"{new.key.name} {key} now: {', '.join([*differing[:FEATURES], *more]) or 'no value changes'}"


def _values(store: OfflineStore, view: FeatureView, keys: pa.Array, time_ms: int) -> dict[str, np.ndarray]:
    """Feature -> the value of each entity; features that are lists are left out."""
    rows, _ = view_rows(view, read_events(store, view.source, view.read_fields), keys)
    found = features_of(view, rows, Questions(keys, np.full(len(keys), time_ms), np.full(len(keys), -1)))
    return {feature.name: found[:, i] for i, feature in enumerate(view.served) if feature.aggregation.gives is not list}


def _shown(values: dict[str, np.ndarray], name: str, i: int) -> str:
    if name not in values:
        return "(none)"
    return number(values[name][i : i + 1].tolist()[0])
