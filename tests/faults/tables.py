"""The offline table of a view compared with its log, bit by bit, piece by piece while it grows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc
from tests.faults.logcheck import Ints, PartitionCheck

from tidemill.declarations import FeatureView
from tidemill.errors import DoubledRows, OfflineUnavailable, TornTable, UnknownTable
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore


class TableCheck:
    """Rows of one view. `checks`: of its partitions; `checked`: up to which offset each partition was compared."""

    def __init__(self, view: FeatureView, checks: Sequence[PartitionCheck], store: OfflineStore) -> None:
        self._view, self.checks, self._store = view, checks, store
        self.checked = dict.fromkeys(range(view.partitions), 0)

    def compare(self, *, whole: bool = False) -> int:
        """Compares the rows that are new (`whole`: all of them again), and that a table's counter says what rows it has. Returns how many.

        A table that cannot be read at the moment is left for the next time, unless it is the last.
        """
        if whole:
            self.checked = dict.fromkeys(self.checked, 0)
        try:
            snapshot = self._store.snapshot(view_folder(self._view.log))
            positions = snapshot.positions  # before the rows, which take long: a fault may strike the table's log meanwhile
            first = min(self.checked.values())
            table = snapshot.scan(["partition", "offset", "proof"], pc.field("offset") >= first)
        except DoubledRows as error:
            self.checks[0].tell("different", "rows of the offline table", [str(error)])
            return 0
        except (OfflineUnavailable, TornTable, UnknownTable):
            if whole:
                raise
            return 0
        compared = 0
        for check in self.checks:
            rows = table.filter(pc.field("partition") == check.partition)
            compared += self._partition(check, rows["offset"].to_numpy(), rows["proof"].to_numpy(), positions[check.partition], whole=whole)
        return compared

    def _partition(self, check: PartitionCheck, offsets: Ints, proofs: Ints, position: int, *, whole: bool) -> int:
        first = self.checked[check.partition]
        skipped = int((offsets < first).sum())
        offsets, proofs = offsets[skipped:], proofs[skipped:]
        if position != first + len(offsets):
            check.tell("different", "rows of the offline table and its counter", [(first, len(offsets), position)])
        if whole and position != check.next:
            check.tell("lost", "rows of the offline table (has, log has)", [(position, check.next)])
        compared = check.offline(first, offsets, proofs)
        self.checked[check.partition] = first + compared
        return compared
