"""Which archived events a store had seen of some entities when it was read, and in which order. Exactly, not by the clock.

A store says how far it had folded a partition of a view's log: the next offset, and the last source position from each partition of the
event's topic. The second says which events it must have seen. Where their records lie, the view's rows say: only there the order of events
of different partitions can be read. Events that a version was filled with have no source position; their records are found by time, known
time and id. Nothing else is taken from the rows: what an event says, it says in the archive.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import duckdb
import pyarrow as pa

from tidemill.archive.columns import ID, KNOWN, OFFSET, PARTITION, TIME, TOPIC
from tidemill.declarations import FeatureView
from tidemill.durations import parse_ms
from tidemill.timestamps import rfc3339
from tidemill.verify.entities import entity_sql
from tidemill.verify.expressions import SqlPart, quoted, text
from tidemill.verify.fields import field_sql
from tidemill.verify.meaning import Meaning
from tidemill.verify.sql import LOG_TIME, POSITION, database, fed_sql

FILLED = 2**33
"""The source partition of records that a fill made."""

ROW_COLUMNS = ["offset", "key", "source_partition", "source_offset", "known", "time", "id"]
"""The columns of a view's rows that are read."""

_ORIGIN_MS = 10_000  # so far before and after its moment `since_ms` may be wrong: by it, clocks of several machines are compared
_SHOWN = 5


class Reached(NamedTuple):
    """How far a store had folded a partition of a view's log. `next`: the next offset; `sources`: the last offset of each partition of the
    event's topic; `begins`: the offsets from which ingestion routes to the log, which has those below by its fill; `since_ms`: the log
    lacks events from before this moment (0: none)."""

    next: int
    sources: Mapping[int, int]
    begins: Mapping[int, int] = {}
    since_ms: int = 0

    @property
    def ends(self) -> dict[int, int]:
        """By partition of the event's topic, the offset below which every event has been seen."""
        live = {partition: last + 1 for partition, last in self.sources.items() if partition < FILLED}
        return {partition: max(live.get(partition, 0), self.begins.get(partition, 0)) for partition in live.keys() | self.begins.keys()}


class Absent(NamedTuple):
    """Events that the archive rightly lacks: those known before a moment, and those that were erased, by topic, partition and offset."""

    known_before_ms: int = 0
    erased: Collection[tuple[str, int, int]] = ()


class Seen(NamedTuple):
    """The events of some entities, as the archive has them, with their `POSITION` and `LOG_TIME`. `echoes`: records that ingestion sent again:
    the position of the first one, their own, and the log's time. `gone`: entities of which the archive rightly lacks an event, so that they
    cannot be computed, and why. `strange`: in words, the first events that have no record, and records that have no event."""

    events: pa.Table
    echoes: pa.Table
    gone: dict[str, str]
    strange: list[str]


def seen_events(view: FeatureView, archive: pa.Table, rows: pa.Table, reached: Reached, absent: Absent) -> Seen:
    """`archive`: the archived events of some entities, at least up to `reached`; `rows`: theirs in the view's partition, below `reached.next`,
    with the time of the log at each as `LOG_TIME` if the view remembers ids for a time."""
    db = database(len(archive))
    try:
        db.register("archive", archive)
        db.register("log", rows)
        db.execute("CREATE TEMP TABLE event AS SELECT * FROM archive")
        ends = reached.ends
        db.register("reached", pa.table({"of": pa.array(list(ends), pa.int64()), "upto": pa.array(list(ends.values()), pa.int64())}))
        db.execute(_once())
        fields = {name: SqlPart(field_sql(view.source, name, archive), view.source.base_type(name)) for name in view.read_fields}
        db.execute(_owned(view, entity_sql(view.key.fields, fields), fed_sql(view, fields)))
        db.execute(_expected(view, reached))
        gone, foreign = _gone(db, view, absent)
        strange = [*_texts(db, "own IS NULL", "no record of the event"), *foreign][:_SHOWN]
        timed = quoted(LOG_TIME) if LOG_TIME in rows.column_names else "CAST(NULL AS BIGINT)"
        at = f'SELECT row, position, {timed} AS log_ms FROM expected LEFT JOIN log ON expected.position = log."offset"'
        chosen = f"SELECT event.*, position AS {quoted(POSITION)}, log_ms AS {quoted(LOG_TIME)} FROM event JOIN ({at}) ON event.rowid = row"
        return Seen(db.sql(chosen).to_arrow_table(), db.sql(_echoes(timed)).to_arrow_table(), gone, strange)
    finally:
        db.close()


def _once() -> str:
    """The records without those that ingestion sent again. `nth`: of the filled ones, since several may be alike."""
    first = 'row_number() OVER (PARTITION BY source_partition, source_offset ORDER BY "offset") = 1'
    once = f"SELECT * FROM log WHERE source_partition IS NOT NULL QUALIFY {first}"
    alike = f"source_partition = {FILLED}, key, known, time, id"
    return f'CREATE TEMP TABLE once AS SELECT *, row_number() OVER (PARTITION BY {alike} ORDER BY "offset") AS nth FROM ({once})'


def _echoes(timed: str) -> str:
    """The records that ingestion sent again. `timed`: the SQL of the log's time."""
    first = 'min("offset") OVER (PARTITION BY source_partition, source_offset)'
    rows = f'SELECT {first} AS first, "offset" AS position, {timed} AS log_ms FROM log WHERE source_partition IS NOT NULL'
    return f"SELECT * FROM ({rows}) WHERE position > first"


def _owned(view: FeatureView, key: str, fed: str) -> str:
    """Each event that feeds the view, with `own`, the offset of its record; null where it has none."""
    near = "true" if view.ahead is None else f"epoch_ms({TIME}) - epoch_ms({KNOWN}) <= {parse_ms(view.ahead)}"
    place = (
        f"SELECT rowid AS row, {key} AS key, {TOPIC} AS topic, {PARTITION} AS partition, {OFFSET} AS place, epoch_ms({KNOWN}) AS known, "
        f"{Meaning(view).time_sql(f'epoch_ms({TIME})', f'epoch_ms({KNOWN})')} AS time, {ID} AS id FROM event WHERE {near} AND {fed}"
    )
    routed = (
        f"e.topic = {text(view.source.topic)} AND once.source_partition = e.partition AND once.source_offset = e.place AND once.key = e.key"
    )
    live = f'SELECT e.*, once."offset" AS live FROM ({place}) e LEFT JOIN once ON {routed}'
    alike = "live IS NULL, key, known, time, id"
    numbered = f"SELECT *, row_number() OVER (PARTITION BY {alike} ORDER BY topic, partition, place) AS nth FROM ({live})"
    filled = (
        f"live IS NULL AND once.source_partition = {FILLED} AND once.key = n.key AND once.known = n.known AND once.time = n.time "
        "AND once.id IS NOT DISTINCT FROM n.id AND once.nth = n.nth"
    )
    owned = f'SELECT n.* EXCLUDE (live, nth), coalesce(live, once."offset") AS own FROM ({numbered}) n LEFT JOIN once ON {filled}'
    return f"CREATE TEMP TABLE owned AS {owned}"


def _expected(view: FeatureView, reached: Reached) -> str:
    """The events that must have been seen, each with its position. One without a record has the position of the one known before it."""
    since = reached.since_ms and reached.since_ms + _ORIGIN_MS
    lacking = f"topic = {text(view.source.topic)} AND place < upto AND known >= {since}"
    before = "PARTITION BY key ORDER BY known, topic, partition, place ROWS UNBOUNDED PRECEDING"
    return (
        f"CREATE TEMP TABLE expected AS SELECT *, coalesce(own, max(own) OVER ({before}), -1) AS position "
        f"FROM owned LEFT JOIN reached ON of = partition WHERE own IS NOT NULL OR coalesce({lacking}, false)"
    )


def _gone(db: duckdb.DuckDBPyConnection, view: FeatureView, absent: Absent) -> tuple[dict[str, str], list[str]]:
    """The entities with records whose event the archive rightly lacks, and in words the other records without an event."""
    gone, strange = dict[str, str](), list[str]()
    found = (
        'SELECT key, source_partition, source_offset, known, "offset" FROM once ANTI JOIN owned ON own = once."offset" ORDER BY "offset"'
    )
    for key, partition, place, known, offset in db.execute(found).fetchall():
        erased = absent.erased if partition == FILLED else (view.source.topic, partition, place) in absent.erased
        if known < absent.known_before_ms or erased:
            gone[key] = "forgotten" if known < absent.known_before_ms else "erased"
        elif len(strange) < _SHOWN:
            strange.append(f"no event of the record at {offset} of the log, known {rfc3339(known)}")
    return gone, strange


def _texts(db: duckdb.DuckDBPyConnection, where: str, what: str) -> list[str]:
    found = db.execute(f"SELECT topic, partition, place, known FROM expected WHERE {where} ORDER BY known LIMIT {_SHOWN}")
    return [f"{what} {topic}[{partition}] at {place}, known {rfc3339(known)}" for topic, partition, place, known in found.fetchall()]
