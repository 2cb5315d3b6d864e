"""Feature computation over the twins: it reads the fence in the store, folds the records after it, and writes values and the new fence."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.declarations import FeatureView
from tidemill.errors import FenceConflict
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import PartitionFold, empty_fence, entities_of, entry_decoder
from tidemill.kernel.recent import Recent
from tidemill.kernel.view import ViewKernel
from tidemill.online.writer import OnlineWriter
from tidemill.records import DeadLetterRecord
from tidemill.streams.dead_letters import letter_of_refused
from tidemill.testing.log import TopicRecord


class Folder:
    """Folds the records of one view's topic into the online store, which has all of its state but for the ids of late."""

    def __init__(self, view: FeatureView, kernel: ViewKernel, writer: OnlineWriter) -> None:
        self._view = view
        self._kernel = kernel
        self._writer = writer
        self._decode = entry_decoder(view)
        self._recent: dict[int, Recent | None] = {}

    async def begin(self, partition: int) -> None:
        """Writes the first fence of a partition, as a worker does."""
        await self._writer.begin(self._view.log, partition, empty_fence(self._kernel).encode())

    async def fold(self, partition: int, records: Sequence[TopicRecord]) -> list[DeadLetterRecord]:
        """Applies records and returns the dead letters of the refused ones. Raises FenceConflict unless the records start at the fence."""
        entries = [self._decode(record.offset, record.key, record.value) for record in records]
        before, values = await self._writer.load(self._view.log, partition, list(entities_of(entries)))
        fence = empty_fence(self._kernel) if before is None else Fence.decode(before)
        if fence.next != records[0].offset:
            raise FenceConflict(f"view {self._view.name!r} partition {partition}", expected=records[0].offset, found=fence.next)
        fold, states = PartitionFold(self._kernel, fence), {entity: self._kernel.decode(value) for entity, value in values.items()}
        fold.recent = self._recent.setdefault(partition, fold.recent)
        progress = fold.advance(entries, states)
        changed = {entity: self._kernel.encode(states[entity]) for entity in progress.touched}
        if not await self._writer.apply(self._view.log, partition, before, fold.fence.encode(), changed):
            del self._recent[partition]  # it has records that the store has not
            raise FenceConflict(f"view {self._view.name!r} partition {partition}", expected=fence.next, found=None)
        topic, first, horizon_ms = records[0].topic, records[0].offset, self._kernel.horizon_ms
        return [
            letter_of_refused(self._view, topic, partition, refused, horizon_ms, records[refused.entry.offset - first])
            for refused in progress.refused
        ]
