"""Erasing the archived events of a person, or of anything else that a field names.

They are deleted by position: what was found is what goes, also where the value lies among the undeclared fields. The positions are written
down first, so that the audit does not miss the events while Kafka still holds them. At the end the replaced files are deleted at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import OFFSET, PARTITION, TOPIC, erased_folder, event_folder
from tidemill.archive.reading import read_events
from tidemill.chunks import chunks
from tidemill.clock import now_ms
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import BadRequest, OfflineUnavailable
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.streams.topics import dead_letters_topic, view_topic

ERASED = pa.schema([(TOPIC, pa.string()), (PARTITION, pa.int64()), (OFFSET, pa.int64()), ("erased", pa.int64())])
"""Columns of a table of erased positions. `erased`: when, in epoch ms."""

_AT_ONCE = 10_000
_ROUNDS = 10


@dataclass(frozen=True)
class Wanted:
    """The events to erase: those in which a field has a value."""

    event: Event
    field: str
    value: str | int

    @classmethod
    def parse(cls, event: Event, text: str) -> Wanted:
        """From FIELD=VALUE. Raises BadRequest."""
        field, equals, value = text.partition("=")
        kinds = {name: kind for name, kind in event.types.items() if kind in (str, int)}
        if not equals or field not in kinds:
            raise BadRequest(f"{text!r} does not name a field", mend=f"write FIELD=VALUE with one of {', '.join(kinds)}")
        if kinds[field] is str:
            return cls(event, field, value)
        try:
            return cls(event, field, int(value))
        except ValueError:
            raise BadRequest(f"{field} is a whole number, not {value!r}", mend=f"write for example {field}=7") from None


def matching(store: OfflineStore, wanted: Wanted) -> pa.Table:
    """The archived events to erase, as `read_events` gives them, with their field. Raises OfflineUnavailable."""
    rows = read_events(store, wanted.event, [wanted.field], doubled=True)
    return rows.filter(pc.equal(rows[wanted.field], pa.scalar(wanted.value, rows[wanted.field].type)))


def erase(store: OfflineStore, wanted: Wanted) -> int:
    """Delete the events from the archive, and at once every file that holds one of them; returns how many events.

    It ends when none is left, also of those that came meanwhile. Readers of an older version of the table fail once, and begin again.
    Raises OfflineUnavailable.
    """
    table = store.counted_table(event_folder(wanted.event.name), pa.schema([]))
    deleted = 0
    for _ in range(_ROUNDS):
        found = matching(store, wanted)
        if not len(found):
            if deleted:
                table.tidy(kept_seconds=0)
            return deleted
        _write_down(store, wanted.event, found)
        for condition in _conditions(found):
            deleted += table.delete(condition)
    raise OfflineUnavailable(f"events with {wanted.field}={wanted.value} keep coming", mend="stop who publishes them, then erase again")


def erased_positions(store: OfflineStore, event: Event) -> set[tuple[str, int, int]]:
    """Topic, partition and offset of every event that was erased from an event's table."""
    snapshot = store.find(erased_folder(event.name))
    if snapshot is None:
        return set()
    rows = snapshot.scan([TOPIC, PARTITION, OFFSET], order=())
    return set(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))


def other_places(project: Project, wanted: Wanted) -> list[str]:
    """Where else the value may lie. `erase` touches none of these."""
    places = [f"topic {wanted.event.topic}, as long as Kafka keeps it", f"topic {dead_letters_topic(project.name)}, if events were refused"]
    for view in project.views_of(wanted.event):
        if wanted.field in view.key.fields:
            places.append(f"view {view.name}: topic {view_topic(project.name, view.log)}, table {view_folder(view.log)}, and Redis")
        elif wanted.field in (*view.value_fields, wanted.event.id):
            online = ", Redis where a feature keeps it" if wanted.field in view.value_fields else ""
            places.append(
                f"view {view.name}: topic {view_topic(project.name, view.log)}, table {view_folder(view.log)}{online}, not by its key"
            )
    if project.models:
        places.append("predictions: topic and tables predictions and results; what was stored of training sets below models/")
    places.append("the table's own commits name the smallest and the largest value of each file, for about a day")
    return places


def _write_down(store: OfflineStore, event: Event, found: pa.Table) -> None:
    rows = found.select([TOPIC, PARTITION, OFFSET])
    store.counted_table(erased_folder(event.name), ERASED).append(
        rows.append_column("erased", pa.repeat(pa.scalar(now_ms(), pa.int64()), len(rows))), {}
    )


def _conditions(found: pa.Table) -> list[str]:
    """The positions as conditions in SQL, each of bounded length."""
    offsets: dict[tuple[str, int], list[int]] = {}
    for topic, partition, offset in zip(*(found[name].to_pylist() for name in (TOPIC, PARTITION, OFFSET)), strict=True):
        offsets.setdefault((topic, partition), []).append(offset)
    return [
        f"{TOPIC} = '{topic}' AND {PARTITION} = {partition} AND {OFFSET} IN ({', '.join(map(str, part))})"
        for (topic, partition), all_of_them in offsets.items()
        for part in chunks(sorted(all_of_them), _AT_ONCE)
    ]
