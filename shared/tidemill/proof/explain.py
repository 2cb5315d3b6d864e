"""What an entity's values are made of: fence, tiles, windows and rows, as the online store has them and as the offline rows give them.

Both sides show the same moment: the rows are folded up to the fence that was read together with the value.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from tidemill.declarations import FeatureView
from tidemill.declarations.aggregations import Value
from tidemill.declarations.windows import Covered, Tile, Window
from tidemill.errors import CorruptState
from tidemill.kernel.fences import Fence
from tidemill.kernel.fold import LogEntry
from tidemill.kernel.packed import EntityState
from tidemill.kernel.served import Served, serve, withheld
from tidemill.kernel.view import ViewKernel
from tidemill.online.writer import OnlineWriter
from tidemill.proof.counterexample import Difference, differences, newest_of, tiles_of
from tidemill.proof.partition_audit import PartitionAudit
from tidemill.records import Status


class ExplainedFeature(NamedTuple):
    """One feature on both sides, and the tiles that its window covers. `tiles`: how many of them hold events. A value is None unless its
    status is PRESENT."""

    name: str
    online: Value | None
    online_status: Status
    offline: Value | None
    offline_status: Status
    window: Window
    covered: Covered
    tiles: int

    def plain(self) -> dict[str, Any]:
        """As plain data, for machines: the window as the length of its tiles and where the first and the last begin, in ms."""
        start_ms, last_ms = self.window.starts_ms(self.covered)
        plain = self._asdict() | {"tile_ms": self.window.grid.written_ms, "start_ms": start_ms, "last_ms": last_ms}
        return {name: value for name, value in plain.items() if name not in ("window", "covered")}


class Side(NamedTuple):
    """An entity as one store has it: newest event in ms (None: it is erased), recent ids, and the slots of each tile."""

    newest_ms: int | None
    ids: list[str]
    tiles: dict[Tile, dict[str, float | str]]

    def plain(self) -> dict[str, Any]:
        """As plain data, for machines: each tile as its length and start in ms, and its slots."""
        return self._asdict() | {"tiles": [(*tile.written, slots) for tile, slots in self.tiles.items()]}


class Row(NamedTuple):
    """The entity's newest row: the last below the fence."""

    offset: int
    time_ms: int | None
    known_ms: int | None
    id: str | None
    source: tuple[int, int] | None


class Explanation(NamedTuple):
    """An entity of a view. `where`: the condition of the events that feed the view (None: all); `erase`: that of the events that erase it (None: none does); `online`, `offline`: None where that store has no value; `rebuilding`: its values are not served now; `damaged`:
    why the online value cannot be read; `offline_end`: the rows below this offset were folded; `rows`: how many of them are the
    entity's."""

    view: str
    where: str | None
    erase: str | None
    log: str
    partition: int
    entity: str
    time_ms: int
    fence_key: str
    entity_key: str
    fence: dict[str, Any] | None
    rebuilding: bool
    offline_end: int
    rows: int
    newest: Row | None
    online: Side | None
    offline: Side | None
    damaged: str | None
    features: list[ExplainedFeature]
    differences: list[Difference]


async def explain(view: FeatureView, entity: str, audit: PartitionAudit, online: OnlineWriter, time_ms: int) -> Explanation:
    """Explains the values of an entity at a time. `audit`: the audit of the entity's partition.

    Raises StoreUnavailable, and OfflineUnavailable when the offline store does not reach the online fence in time.
    """
    key, kernel = entity.encode(), audit.kernel
    partition = audit.partition
    fence_key, entity_key = online.keys(view.log, partition, key)
    encoded, values = await online.load(view.log, partition, [key])
    fence = None if encoded is None else Fence.decode(encoded)
    building = fence is None or bool(fence.builder)
    end = await asyncio.to_thread(audit.rows) if fence is None or building else fence.next
    entries, states = await asyncio.to_thread(audit.alone, [entity], end)
    stored, state = (None if building else values.get(key)), states.get(key)
    rebuilding = fence is None or fence.next < fence.until
    decoded, damaged = _decoded(kernel, stored)
    return Explanation(
        view.name,
        view.where,
        view.erase,
        view.log,
        partition,
        entity,
        time_ms,
        fence_key.decode(),
        entity_key.decode(),
        None if fence is None else msgspec.to_builtins(fence, str_keys=True),
        rebuilding,
        end,
        len(entries),
        _row(entries[-1]) if entries else None,
        _side(kernel, decoded),
        _side(kernel, state),
        damaged,
        _features(kernel, decoded, state, time_ms, audit.since_ms, rebuilding=rebuilding),
        [] if building else differences(kernel, stored, None if state is None else kernel.encode(state)),
    )


def _decoded(kernel: ViewKernel, value: bytes | None) -> tuple[EntityState | None, str | None]:
    try:
        return (None if value is None else kernel.decode(value)), None
    except CorruptState as error:
        return None, error.message


def _row(entry: LogEntry) -> Row:
    record = entry.record
    if record is None:
        return Row(entry.offset, None, None, None, None)
    return Row(entry.offset, record.time, record.known, record.id, record.source)


def _side(kernel: ViewKernel, state: EntityState | None) -> Side | None:
    if state is None:
        return None
    return Side(newest_of(state), state.recent_ids, tiles_of(kernel, state))


def _features(
    kernel: ViewKernel, online: EntityState | None, offline: EntityState | None, time_ms: int, since_ms: int, *, rebuilding: bool
) -> list[ExplainedFeature]:
    view = kernel.view
    here = withheld(view) if rebuilding else _served(kernel, online, time_ms, since_ms)
    there, tiles = _served(kernel, offline, time_ms, since_ms), {} if offline is None else tiles_of(kernel, offline)
    shown = []
    for i, feature in enumerate(view.served):
        covered = feature.window.at(time_ms, time_ms, 0)
        used = sum(tile.grid == feature.window.grid and covered[0] <= tile.number <= covered[1] for tile in tiles)
        shown.append(ExplainedFeature(feature.name, *_value(here, i), *_value(there, i), feature.window, covered, used))
    return shown


def _served(kernel: ViewKernel, state: EntityState | None, time_ms: int, since_ms: int) -> Served:
    return serve(kernel.view, None if state is None else kernel.read_state(state, time_ms, since_ms), time_ms)


def _value(served: Served, i: int) -> tuple[Value | None, Status]:
    status = served.statuses[i]
    return (served.value(i) if status == "PRESENT" else None), status
