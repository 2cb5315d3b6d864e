"""The part of a view's partition that some questions need: the rows of their entities, and two numbers for each other row.

So memory depends on the questions, not on the table. The answers are the same as from the whole partition.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.declarations import FeatureView
from tidemill.offline.history import PartitionLog, resent, told_since
from tidemill.offline.store import Snapshot


def partition_end(snapshot: Snapshot, partition: int) -> int:
    """The offset after the last row of a partition; 0 without rows."""
    return snapshot.positions.get(partition, 0)


def asked_log(
    snapshot: Snapshot, view: FeatureView, partition: int, entities: Iterable[bytes], *, below: int | None = None
) -> PartitionLog:
    """The rows of these entities in a partition (with `below`: only below that offset), as a PartitionLog.

    Rows that ingestion sent again are left out; all records of the partition are needed to find them. Raises OfflineUnavailable.
    """
    where = pc.field("partition") == partition
    if below is not None:
        where &= pc.field("offset") < below
    places = snapshot.scan(["offset", "source_partition", "source_offset"], where & pc.field("time").is_valid())
    twice = resent(places["source_partition"].to_numpy(), places["source_offset"].to_numpy())
    again = places["offset"].to_numpy()[twice]
    rows = snapshot.scan(filters=where, among=("key", {entity.decode() for entity in entities}))
    rows = rows.filter(pa.array(~np.isin(rows["offset"].to_numpy(), again)))
    untimed = snapshot.scan(["key", "time"], where & pc.field("time").is_null())  # one of them may say since when events feed the view
    return PartitionLog(view, rows, told_since(untimed))
