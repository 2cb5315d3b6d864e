"""What a logged prediction knew of an entity, where the clock does not say it: when events became known is not when they were published.

History that is replayed (`ce_recordedtime`) is published today and became known long ago. A prediction that was asked for on the way had seen
a part of it: the fence in its stamp says which records of the view's log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import stamp_of_row
from tidemill.verify.compare import SETTLED_MS, possible
from tidemill.verify.sql import AskedMoment, SqlView

_COLUMNS = ["key", "partition", "offset", "known"]


def records_of(store: OfflineStore, view: FeatureView, entities: Collection[str]) -> pa.Table:
    """Where the records of some entities lie in a view's log, and when their events became known. Raises OfflineUnavailable, TornTable."""
    log = store.find(view_folder(view.log))
    if log is None:
        return pa.table({name: pa.array([], pa.string() if name == "key" else pa.int64()) for name in _COLUMNS})
    return log.scan(_COLUMNS, pc.field("time").is_valid(), among=("key", entities), order=())


def knowledge(sql: SqlView, entity: str, prediction: Mapping[str, Any], records: pa.Table) -> Sequence[AskedMoment]:
    """Every knowledge that a prediction may have had of an entity. `prediction`: a row of the table `predictions`; `records`: see `records_of`.

    By the clock, unless records that it had not seen were known long before it: then it had seen what became known before these. Empty:
    it had seen later ones too, so nobody can tell by when events became known.
    """
    ends = {entry.partition: entry.next for entry in stamp_of_row(prediction["stamp"]) if entry.view == sql.view.log}
    mine = records.filter(pc.equal(records["key"], entity)).to_pylist()
    seen = [row["known"] for row in mine if row["offset"] < ends.get(row["partition"], 0)]
    unseen = [row["known"] for row in mine if row["offset"] >= ends.get(row["partition"], row["offset"] + 1)]
    if not unseen or min(unseen) >= prediction["served"] - SETTLED_MS:
        return possible(sql, entity, prediction["time"], prediction["served"])
    return [AskedMoment(entity, prediction["time"], min(unseen))] if max(seen, default=0) < min(unseen) else []
