"""The features of a view at many moments, in SQL over the archived events. It shares no code with the kernel.

Four steps, each one statement over tables of DuckDB:

1. `judged`: the events of the asked entities, with a value for each column, in the order in which they became known (`seq`).
2. Which of them count. An event that is too late, or whose id is remembered, does not. One that erases is never too late,
   and those before it in its order neither make an event late nor are they seen by a question that sees it. Whether one counts depends
   on those before it, so the statement is repeated until its answer agrees with itself. What one event needs to know is settled one
   repetition after what its predecessors need, so there is exactly one such answer.
3. What the aggregates need of the events that a question sees, one row for each question.
4. The value of each feature, and why there is none.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import duckdb
import pyarrow as pa

from tidemill.archive.columns import ID, KNOWN, OFFSET, PARTITION, TIME, TOPIC
from tidemill.declarations import Event, FeatureView
from tidemill.verify.aggregates import aggregate_sql
from tidemill.verify.entities import entity_sql
from tidemill.verify.expressions import SqlPart, column_sql, quoted, text
from tidemill.verify.fields import field_sql
from tidemill.verify.meaning import CLOCKS_MS, Meaning, MeantWindow

State = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]
Value = float | list[float] | str
ALWAYS_MS = 2**62
_FEW = 1_000  # of so few events the plan costs more than what it saves
BY_KNOWN = None
"""The order of training sets and of history: by when events became known; of events that have a `POSITION`, by that."""

POSITION = "position in the log"
"""A column that events may have beside those of the archive: where their record lies in a view's log. No field has such a name."""

LOG_TIME = "time of the log"
"""Another one beside it: the time of the log at this record, in ms; null where it is not known."""


@cache
def _databases(threads: int | None) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={} if threads is None else {"threads": threads})


def database(events: int, threads: int | None = 1) -> duckdb.DuckDBPyConnection:
    """A connection with tables of its own to a database in memory that all share, since opening one takes long. `events`: how many there are
    to read about. The caller closes it."""
    if events >= _FEW:
        return _databases(threads).cursor()
    db = _databases(1).cursor()
    db.execute("PRAGMA disable_optimizer")
    return db


class Place(NamedTuple):
    """The position of an archived event."""

    topic: str
    partition: int
    offset: int


class Announcement(NamedTuple):
    """An event that asks: when it became known, where it lies, and its id. A later publication with this id is the same event."""

    known_ms: int
    place: Place
    id: str | None


class AskedMoment(NamedTuple):
    """What were the features of an entity at a moment, of what was known before another? `before`: that moment, in ms; of events that have a
    `POSITION`, a position. `without`: the event that asks, which was not seen although it was known."""

    entity: str
    at_ms: int
    before: int = ALWAYS_MS
    without: Announcement | None = None


class Found(NamedTuple):
    """A feature by SQL. `slack`: how far a right value may lie from it; not finite where the sum is beyond a double."""

    state: State
    value: Value | None
    slack: float


class SqlAnswer(NamedTuple):
    """The features of a question, by name. `vague`: the moment lies so far back that how old the entity was is no longer kept."""

    features: dict[str, Found]
    vague: bool


def fed_sql(view: FeatureView, fields: Mapping[str, SqlPart]) -> str:
    """Whether an event feeds the view: `where` is true, neither false nor null. `fields`: the SQL of each field."""
    return "true" if view.where is None else _is_true(view.where, fields)


def _is_true(condition: str, fields: Mapping[str, SqlPart]) -> str:
    return f"coalesce({column_sql(condition, fields)} = 1, false)"


class EventRows:
    """The archived events of a declaration, as a subquery over a table of DuckDB: an event's position, its times in ms, its id, `came` (by which
    one knows what was seen before), `log_ms` (the time of the log, if it is known), and some fields as f0, f1, ..., since a field may have any name. `fields`: the SQL of each field."""

    def __init__(self, event: Event, names: Collection[str], archive: pa.Table, table: str = "archive") -> None:
        own = f"{TOPIC} AS topic, {PARTITION} AS partition, {OFFSET} AS place, epoch_ms({KNOWN}) AS known, epoch_ms({TIME}) AS time, {ID} AS id"
        placed = POSITION in archive.column_names
        own += (
            f", {quoted(POSITION)} AS came, {quoted(LOG_TIME)} AS log_ms"
            if placed
            else f", epoch_ms({KNOWN}) AS came, CAST(NULL AS BIGINT) AS log_ms"
        )
        carried = "".join(f", {field_sql(event, name, archive)} AS f{i}" for i, name in enumerate(names))
        self.fields = {name: SqlPart(f"f{i}", event.base_type(name)) for i, name in enumerate(names)}
        self.sql = f"(SELECT {own}{carried} FROM {table})"


class SqlView:
    """A view over the archived events of its source. `archive`: columns of `archive/columns.py`; those that the table does not have lie in
    `_extra`. `echoes`: see `seen.Seen`."""

    def __init__(self, view: FeatureView, archive: pa.Table, echoes: pa.Table | None = None, *, threads: int | None = None) -> None:
        self.view = view
        self.meaning = Meaning(view)
        self._texts = list(dict.fromkeys(feature.column for feature in self.meaning.features if feature.column is not None))
        self._event = view.source
        self._archive = archive
        self._db = database(len(archive), threads)
        self._db.register("archive", archive)
        self._echoes = echoes
        if echoes is not None:
            self._db.register("echoes", echoes)

    def close(self) -> None:
        """Gives its memory back."""
        self._db.close()

    @property
    def source(self) -> str:
        """Step 1, a subquery: the view's events, with `key`, the columns c0, c1, ..., and `erases`."""
        rows = EventRows(self._event, self.view.read_fields, self._archive)
        columns = "".join(f", {column_sql(column, rows.fields)} AS c{i}" for i, column in enumerate(self._texts))
        columns += f", {'false' if self.view.erase is None else _is_true(self.view.erase, rows.fields)} AS erases"
        key = entity_sql(self.view.key.fields, rows.fields)
        ahead = "" if self.meaning.ahead_ms is None else f" AND time - known <= {self.meaning.ahead_ms}"
        return (
            f"(SELECT topic, partition, place, known, {self.meaning.time_sql('time', 'known')} AS time, id, came, log_ms, {key} AS key{columns} "
            f"FROM {rows.sql} WHERE {fed_sql(self.view, rows.fields)} AND {key} IS NOT NULL{ahead})"
        )

    def entities(self, most: int, seed: int) -> list[str]:
        """Some of the entities, by chance; the same ones for the same seed."""
        chance = f"hash(key || {text(f' {seed}')})"
        found = self._db.execute(f"SELECT DISTINCT key, {chance} AS chance FROM {self.source} ORDER BY chance, key LIMIT {most}").fetchall()
        return [key for key, _ in found]

    def moments(self, most: int, seed: int) -> list[int]:
        """Times of some events, by chance, of those for which the longest window may still be asked for; the last one again if there are
        fewer."""
        reach_ms = max((window.length_ms or 0 for window in self.meaning.bounded), default=self.meaning.finest_ms)
        recent = f"time >= (SELECT max(time) FROM {self.source}) - {reach_ms}"
        chance = f"hash(time || {text(f' {seed}')})"
        found = self._db.execute(f"SELECT DISTINCT time, {chance} AS chance FROM {self.source} WHERE {recent} ORDER BY chance LIMIT {most}")
        times = [time for time, _ in found.fetchall()]
        return times + times[-1:] * (most - len(times))

    def answers(self, questions: Sequence[AskedMoment], shift_ms: int | None = BY_KNOWN) -> list[SqlAnswer]:
        """The answers, in the order of the questions. `shift_ms`: the events of a partition in the order of its offsets, as a worker folds
        them, and each partition later by so much than the one before it; events of different partitions may overtake each other."""
        if not questions:
            return []
        histories = list(dict.fromkeys((asked.entity, asked.without) for asked in questions))
        self._make_histories(histories, shift_ms)
        self._judge()
        number = {history: i for i, history in enumerate(histories)}
        rows = [(i, number[q.entity, q.without], q.at_ms, q.before) for i, q in enumerate(questions)]
        self._register("questions", rows, [("n", pa.int64()), ("history", pa.int64()), ("moment", pa.int64()), ("before", pa.int64())])
        return [self._answer(row) for row in self._db.execute(self._answers_sql()).fetchall()]

    def known_after(self, entity: str, from_ms: int) -> list[int]:
        """The moments, from one on, at which events of an entity became known."""
        found = self._db.execute(f"SELECT DISTINCT known FROM {self.source} WHERE key = ? AND known >= ? ORDER BY known", [entity, from_ms])
        return [known for (known,) in found.fetchall()]

    def events(self, asked: AskedMoment, most: int) -> list[dict[str, Any]]:
        """The newest events that a question sees, in the order of known: `known`, `time`, `id`, a value for each column, and `counts`."""
        self._make_histories([(asked.entity, asked.without)])
        self._judge()
        columns = "".join(f", c{i} AS {quoted(column)}" for i, column in enumerate(self._texts))
        seen = f"SELECT seq, known, time, id, counts{columns} FROM judged WHERE came < {asked.before} ORDER BY seq DESC LIMIT {most}"
        rows = self._db.execute(f"SELECT * EXCLUDE (seq) FROM ({seen}) ORDER BY seq")
        names = ["known", "time", "id", "counts", *self._texts]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]

    def _make_histories(self, histories: Sequence[tuple[str, Announcement | None]], shift_ms: int | None = BY_KNOWN) -> None:
        """Step 1. A history is an entity's events, perhaps without one of them."""
        rows = [(i, key, *((own.known_ms, *own.place, own.id) if own else [None] * 5)) for i, (key, own) in enumerate(histories)]
        kinds = [
            ("history", pa.int64()),
            ("key", pa.string()),
            ("k", pa.int64()),
            ("t", pa.string()),
            ("p", pa.int64()),
            ("o", pa.int64()),
            ("i", pa.string()),
        ]
        self._register("histories", rows, kinds)
        places = "(a.known, a.topic, a.partition, a.place)", "(h.k, h.t, h.p, h.o)"
        own = f"{places[0]} = {places[1]} OR (coalesce(a.id = h.i, false) AND {places[0]} > {places[1]})"
        without = f"h.t IS NULL OR NOT ({own})"
        arrived = "came"
        if shift_ms is not None:
            arrived = f"max(known) OVER (PARTITION BY history, topic, partition ORDER BY place) + partition * {shift_ms}"
        arrival = "(PARTITION BY history ORDER BY arrived, topic, partition, place)"
        columns = "".join(f", c{i}" for i in range(len(self._texts))) + ", erases"
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE judged AS SELECT history, time, known, came, id, row_number() OVER {arrival} AS seq, "
            f"coalesce(log_ms, max(known) OVER {arrival}) AS log_ms, true AS counts, true AS counted, false AS lately{columns} FROM ("
            f"SELECT h.history, a.*, {arrived} AS arrived FROM {self.source} a JOIN histories h ON a.key = h.key AND ({without}))"
        )
        if self.meaning.memory_ms is not None:
            self._db.execute(_lately_sql(self.meaning.memory_ms, with_echoes=self._echoes is not None))

    def _judge(self) -> None:
        """Step 2."""
        twice = "SELECT history FROM judged WHERE id IS NOT NULL GROUP BY history, id HAVING count(*) > 1 LIMIT 1"
        repeats, changed = bool(self.meaning.last_ids) and self._db.execute(twice).fetchone() is not None, 1
        while changed:
            self._db.execute(f"CREATE OR REPLACE TEMP TABLE judged_again AS {self._judged_sql(repeats=repeats)}")
            (changed,) = self._db.execute("SELECT count(*) FILTER (WHERE counts <> counted) FROM judged_again").fetchone() or (0,)
            self._db.execute("DROP TABLE judged; ALTER TABLE judged_again RENAME TO judged")

    def _judged_sql(self, *, repeats: bool) -> str:
        """Whether each event counts, if of those before it `counted` says so. `repeats`: some ids are there twice; if none is, nothing is looked for
        by id, which takes far longer than all else."""
        before = "ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
        horizon_ms, remembered = self.meaning.horizon_ms, self.meaning.last_ids
        late = "false" if horizon_ms is None else f"coalesce(time < newest - {horizon_ms}, false)"
        twice = f"coalesce(id IS NOT NULL AND same >= number - {remembered}, false)" if repeats else "false"
        newest = f"max(time) FILTER (WHERE counts) OVER (PARTITION BY history, era {before})" if horizon_ms is not None else "0"
        number = f"count(id) FILTER (WHERE counts) OVER (PARTITION BY history {before})" if repeats else "0"
        same = f"max(number) FILTER (WHERE counts) OVER (PARTITION BY history, id {before})" if repeats else "0"
        return (
            f"SELECT * EXCLUDE (era, newest, number, same) REPLACE ((erases OR NOT ({late})) AND NOT ({twice}) AND NOT lately AS counts, counts AS counted) FROM ("
            f"SELECT *, {same} AS same FROM (SELECT *, {newest} AS newest, {number} AS number FROM {self._eras_sql(before)}))"
        )

    def _eras_sql(self, before: str) -> str:
        """The judged events, with how often their entity was erased before each."""
        era = "0" if self.view.erase is None else f"count(*) FILTER (WHERE counts AND erases) OVER (PARTITION BY history {before})"
        return f"(SELECT *, {era} AS era FROM judged)"

    def _remembered_sql(self) -> str:
        """The questions, each with `since`: the last event that it sees and that erased its entity."""
        erased = "max(j.seq) FILTER (WHERE j.counts AND j.erases AND j.came < q.before)"
        if self.view.erase is None:
            return "(SELECT *, 0 AS since FROM questions)"
        return f"(SELECT q.*, coalesce({erased}, 0) AS since FROM questions q LEFT JOIN judged j ON j.history = q.history GROUP BY ALL)"

    def _gathered_sql(self) -> tuple[str, list[str]]:
        """Step 3, and the value, slack and state of each feature over it."""
        gather, told, waits = dict[str, str](), list[str](), self.meaning.ahead_ms is not None
        windows = list(dict.fromkeys(feature.window for feature in self.meaning.features))
        for i, feature in enumerate(self.meaning.features):
            x = "NULL" if feature.column is None else f"e.c{self._texts.index(feature.column)}"
            kept = f"w{windows.index(feature.window)}" + (f" AND {x} IS NOT NULL" if feature.column else "")
            sql = aggregate_sql(feature, i, x, kept)
            gather |= sql.gather
            told += [sql.value, f"CAST({sql.slack} AS DOUBLE)", self._whole(feature.window, feature.since_ms)]
        seen = "max(e.time)"
        if waits:
            begun = f"{_tile('e.time', self.meaning.waiting_ms)} <= {_tile('moment', self.meaning.waiting_ms)}"
            seen = f"max(least(e.time, moment)) FILTER (WHERE {begun})"
        gather |= {"newest": "max(e.time)", "seen": seen}
        gather |= {
            _ends(window): f"bool_or({_tile('e.time', window.tile_ms)} = {_tile('moment', window.tile_ms)})"
            for window in self.meaning.bounded
        }
        columns = ", ".join(f"{sql} AS {name}" for name, sql in gather.items())
        within = "".join(f", {_within(window)} AS w{i}" for i, window in enumerate(windows))
        moment = "q.moment"
        if not waits:
            newest = "max(e.time) OVER (PARTITION BY q.n)"
            moment = f"CASE WHEN {newest} BETWEEN q.moment AND q.moment + {CLOCKS_MS} THEN {newest} ELSE q.moment END"
        joined = (
            f"(SELECT q.n, {moment} AS moment, e.* FROM {self._remembered_sql()} q LEFT JOIN judged e "
            "ON e.history = q.history AND e.counts AND e.came < q.before AND e.seq > q.since)"
        )
        return f"SELECT n, moment, {columns} FROM (SELECT *{within} FROM {joined}) e GROUP BY n, moment", told

    def _answers_sql(self) -> str:
        """Step 4: for each question, why there is no value at all ("": there is), whether the answer is vague, and for each feature its
        value, its slack and whether the tiles of its window are all kept."""
        gathered, told = self._gathered_sql()
        expired = "false" if self.meaning.ttl_ms is None else f"moment - seen > {self.meaning.ttl_ms}"
        reason = f"CASE WHEN seen IS NULL THEN 'NOT_FOUND' WHEN {expired} THEN 'OUTSIDE_MAX_AGE' ELSE '' END"
        vague = "false"
        if self.meaning.ahead_ms is not None:
            finest = next(window for window in self.meaning.bounded if window.tile_ms == self.meaning.waiting_ms)
            vague = f"coalesce({_tile('moment', finest.tile_ms)} < {_tile('newest', finest.tile_ms)} - {self.meaning.kept_tiles(finest)}, false)"
        return f"SELECT {', '.join([reason, vague, *told])} FROM ({gathered}) ORDER BY n"

    def _whole(self, window: MeantWindow, since_ms: int) -> str:
        if window.length_ms is None:
            return "false" if since_ms else f"NOT {_EARLY}"
        first = _tile(f"(moment - {window.length_ms})", window.tile_ms)
        kept = f"{first} >= {_tile('newest', window.tile_ms)} - {self.meaning.kept_tiles(window)}"
        cut = "" if self.meaning.ahead_ms is not None else f" AND NOT ({_EARLY} AND {_ends(window)})"
        return f"{first} * {window.tile_ms} >= {since_ms} AND {kept}{cut}"

    def _answer(self, row: tuple[Any, ...]) -> SqlAnswer:
        reason, vague, *told = row
        found = {}
        for i, feature in enumerate(self.meaning.features):
            value, slack, whole = told[3 * i : 3 * i + 3]
            found[feature.name] = _found(reason, value, slack, whole)
        return SqlAnswer(found, vague)

    def _register(self, name: str, rows: Sequence[tuple[Any, ...]], columns: list[tuple[str, pa.DataType]]) -> None:
        arrays = [pa.array(values, kind) for values, (_, kind) in zip(zip(*rows, strict=True), columns, strict=True)]
        self._db.register(name, pa.table(arrays, names=[name for name, _ in columns]))


def _lately_sql(memory_ms: int, *, with_echoes: bool) -> str:
    """Marks the events of which an earlier record, whatever became of it, has the same id and lies near: in one of the three parts of the log's
    time before, or in the same part. Three parts are the time for which ids are remembered. A record that was sent again is near too."""
    part_ms = math.ceil(memory_ms / 3)
    near, same = f"floor(b.log_ms / {part_ms}) - floor({{}}.log_ms / {part_ms}) <= 3", "a.history = b.history AND a.id = b.id"
    again = f"SELECT b.history, b.seq FROM judged a JOIN judged b ON {same} AND a.seq < b.seq AND {near.format('a')}"
    if with_echoes:
        again += (
            f" UNION SELECT b.history, b.seq FROM judged a JOIN echoes e ON e.first = a.came "
            f"JOIN judged b ON {same} AND e.position < b.came AND {near.format('e')}"
        )
    return f"UPDATE judged SET lately = true FROM ({again}) again WHERE judged.history = again.history AND judged.seq = again.seq"


def _tile(moment: str, tile_ms: int) -> str:
    """The number of the tile of a moment. Tiles are counted from 1970 on. A moment has fewer digits than a double, so this is exact."""
    return f"floor({moment} / {tile_ms})"


_EARLY = "(newest > moment)"


def _ends(window: MeantWindow) -> str:
    """The name under which is gathered whether events lie in the last tile of a window: those after the moment count too, then."""
    return f"ends_{window.tile_ms}"


def _within(window: MeantWindow) -> str:
    """Whether an event lies in the tiles that touch the window: from the tile of its beginning to the tile of its end."""
    if window.length_ms is None:
        return "time IS NOT NULL"
    tile_ms = window.tile_ms
    first, last = _tile(f"(moment - {window.length_ms})", tile_ms), _tile("moment", tile_ms)
    return f"(time >= {first} * {tile_ms} AND time < ({last} + 1) * {tile_ms})"


def _found(reason: State | Literal[""], value: Value | None, slack: float | None, whole: bool) -> Found:
    if reason or not whole:
        return Found(reason or "INVALID", None, 0.0)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Found("NULL_VALUE", None, 0.0 if value is None else math.inf)
    return Found("PRESENT", value, slack or 0.0)
