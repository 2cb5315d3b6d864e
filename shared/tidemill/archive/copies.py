"""Rows whose event the archive has already: the same id at the same time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import ID, TIME
from tidemill.offline.store import OfflineStore

_ROW = "row"


def copies(store: OfflineStore, folder: str, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows have an id, and an event with this id and time stands in the table or among the rows before. Reads only the files of the
    table that can have such times."""
    ids = rows[ID]
    found = np.zeros(len(rows), bool)
    if ids.null_count == len(ids):
        return found
    places = pa.table({ID: ids, TIME: rows[TIME], _ROW: np.arange(len(rows))}).filter(ids.is_valid())
    first = places.group_by([ID, TIME]).aggregate([(_ROW, "min")])
    found[places[_ROW].to_numpy()] = True
    found[first[f"{_ROW}_min"].to_numpy()] = False
    stored = _stored(store, folder, places)
    if len(stored):
        known = places.join(stored, [ID, TIME], join_type="left semi")
        found[known[_ROW].to_numpy()] = True
    return found


def _stored(store: OfflineStore, folder: str, places: pa.Table) -> pa.Table:
    """Ids and times of the table that are among these."""
    ends = pc.min_max(places[TIME])
    within = (pc.field(TIME) >= ends["min"]) & (pc.field(TIME) <= ends["max"])
    snapshot = store.find(folder)
    if snapshot is None:
        return places.select([ID, TIME]).slice(0, 0)
    return snapshot.scan([ID, TIME], within, among=(ID, places[ID].to_pylist()), order=())
