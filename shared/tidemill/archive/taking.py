"""Rows of a file as rows of the archive.

A row whose cells are all plain (see `cells`) is taken with its columns. Every other row is written as the JSON event that it stands for,
and read by the reader of the live path, which takes it or says why not. So both paths refuse the same events for the same reasons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import Mask, mask_of, only
from tidemill.archive.changes import change_in
from tidemill.archive.columns import EXTRA, ID, KNOWN, MOMENT, OFFSET, OWN, PARTITION, TIME, TOPIC
from tidemill.archive.content_ids import ContentIds
from tidemill.archive.file_columns import Carried, FileColumns, texts_of_stamps
from tidemill.archive.file_rules import FileRules, check_columns
from tidemill.archive.files import Chunk, Ints
from tidemill.archive.json_columns import JsonColumns
from tidemill.archive.reading import member_at
from tidemill.archive.rows import AT_ONCE, Whole, event_table, rest_text
from tidemill.archive.times import Times
from tidemill.declarations import Event
from tidemill.declarations.project import Project
from tidemill.errors import UnusableFile
from tidemill.limits import EXACT, KEY_BYTES, MESSAGE_BYTES
from tidemill.records import DECODE_ERRORS
from tidemill.routing.envelopes import Attributes
from tidemill.routing.events import WholeReader, moment
from tidemill.routing.refusals import PassedOver, Reason, Refused, explain_data
from tidemill.routing.uses import uses_of
from tidemill.routing.wire import opened, place_of, put, tree_of
from tidemill.timestamps import LAST_MS, of_ms

_SHOWN = 200
_SURELY_FITS = MESSAGE_BYTES // 8  # bytes of text that are no event too large, however JSON escapes them
_JSON = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_NULL = msgspec.Raw(b"null")


class RefusedRow(NamedTuple):
    """A row that was refused: its number in the file, from 0, the line of a text file, from 1, and why. `column`: as the file calls it."""

    number: int
    line: int | None
    reason: str
    column: str
    value: str
    detail: str


class Taken(NamedTuple):
    """The accepted rows in the order of the file, with the archive's columns. `passed`: how many rows are no event, rightly."""

    rows: pa.Table
    refused: list[RefusedRow]
    passed: int = 0


class Taker:
    """Takes the rows of one file, in their order. `found`: the columns that the event's table has; `topic`: what the rows have as their
    topic; `now_ms`: no event becomes known later."""

    def __init__(self, project: Project, event: Event, reading: FileRules, found: pa.Schema | None, topic: str, now_ms: int) -> None:
        for name in reading.renamed:
            if name not in event.fields:
                near = get_close_matches(name, event.fields, 1)
                raise UnusableFile(
                    f"event {event.name!r} has no field {name!r} for --rename {reading.renamed[name]}={name}",
                    mend=f"name {near[0]!r}" if near else f"name one of {', '.join(event.fields)}",
                )
        self._event, self._rules, self._reading, self._now_ms = event, reading, reading, now_ms
        self._passed = 0
        self._times = Times(reading.times, event.earliest_ms)
        units = [event.unit(name) for name in event.forms if reading.known in (name, event.published(name))]
        self._known_times = self._times.of(next(iter(units), None))
        self._table = replace(event_table(project, event, found), topic=topic)
        declared = [name for name in self._table.schema.names if name not in OWN.names]
        uses = uses_of(project, event)
        self._of_table = WholeReader(event.plain(), uses, declared) if event.forms else self._table.reader
        moments = {event.time, *(model.at for model in project.models.values() if model.on is event)}
        self._moments = {name: kind for name, kind in event.types.items() if name in moments or event.unit(name)}
        self._other_moments = [name for name in moments if name != event.time]
        self._keys = [name for name in {*uses.keys, event.id} if name and event.base_type(name) is str]
        self._numbers, self._joined = uses.numbers, uses.joined
        self._type_column = None if event.type is None or not event.type.keys else ".".join(event.type.keys)
        self._tree = tree_of(event, event.fields)
        self._ids = ContentIds(event, self._table.schema)
        self._null_tokens = {_JSON.encode(text) for text in reading.nulls}
        has_columns = set(self._table.schema.names) - set(OWN.names) >= event.fields.keys()
        plain = has_columns and not reading.nulls and not event.forms and self._type_column is None and event.envelope is None
        self._json = JsonColumns(event, reading, moments, _SURELY_FITS) if plain else None

    def check(self, chunk: Chunk) -> None:
        """Look at the first rows of a file. Raises UnusableFile when columns are missing, are not of a type that can be loaded, or when
        all times look like numbers of another unit."""
        rows = self._events_of(chunk.rows) if isinstance(chunk.rows, list) else chunk.rows
        there = set(rows.schema.names) if isinstance(rows, pa.RecordBatch) else _names(rows)
        reading = self._rules.resolved(self._event, there)
        if isinstance(rows, list):
            nested = {name for name in self._event.fields if self._event.published(name) not in there and len(self._event.keys(name)) > 1}
            if there:
                check_columns(self._event, reading, there | nested)
            found = [] if self._event.unit(self._event.time) else [_member(line, reading.column(self._event.time)) for line in rows]
            times = {self._event.time: self._times.read(pa.array(found), self._event.time)} if set(map(type, found)) == {int} else {}
        else:
            check_columns(self._event, reading, there)
            work = self._columns(chunk, rows)
            times = {name: work.moments(name) for name in [*self._moments, *filter(None, [self._reading.known])]}
        for name, moments in times.items():
            times_of = self._times.of(self._event.unit(name)) if name in self._event.fields else self._known_times
            times_of.check_unit(moments, self._reading.column(name))

    def take(self, chunk: Chunk) -> Taken:
        """The rows of the next chunk. Raises UnusableFile."""
        refused = [RefusedRow(row.number, row.line, row.error.reason, "", row.text, row.error.message) for row in chunk.unread]
        before = self._passed
        if isinstance(chunk.rows, list):
            batches = self._take_lines(chunk, chunk.rows, refused)
        else:
            batches = self._take_columns(chunk, chunk.rows, refused)
        rows = pa.Table.from_batches(batches, self._table.schema)
        return Taken(self._ids.filled(rows if len(batches) < 2 else rows.sort_by(OFFSET)), sorted(refused), self._passed - before)

    def _events_of(self, lines: list[bytes]) -> list[bytes]:
        """The lines as rows, without changes that are no event or cannot be one."""
        found = []
        for line in lines:
            with contextlib.suppress(PassedOver, Refused):
                change = change_in(line, self._event)
                found.append(line if change is None else change.row)
        return found

    def _columns(self, chunk: Chunk, rows: pa.RecordBatch) -> FileColumns:
        self._reading = self._rules.resolved(self._event, rows.schema.names)
        return FileColumns(rows, chunk.lines is not None, self._event, self._reading, self._times, self._known_times, self._moments)

    def _take_lines(self, chunk: Chunk, lines: list[bytes], refused: list[RefusedRow]) -> list[pa.RecordBatch]:
        if self._json is None:
            return self._read(chunk, enumerate(map(self._of_line, lines)), refused)
        found = self._json.read(lines)
        batch, plain = self._plain(self._columns(chunk, found.rows), chunk.numbers[found.places], found.extra)
        slow = np.setdiff1d(np.arange(len(lines)), found.places[plain])
        return [batch, *self._read(chunk, ((row, self._of_line(lines[row])) for row in slow.tolist()), refused)]

    def _take_columns(self, chunk: Chunk, rows: pa.RecordBatch, refused: list[RefusedRow]) -> list[pa.RecordBatch]:
        work = self._columns(chunk, rows)
        lacking = [name for name in self._event.fields if name not in self._table.schema.names or name in OWN.names]
        if other := [name for name in lacking if name in self._event.forms]:
            raise UnusableFile(
                f"field {other[0]!r} has no column in the archive, which has one of this name and another type",
                mend="give the field another name, with the path= that it has",
            )
        batch, plain = self._plain(work, chunk.numbers, work.beyond(lacking))
        if plain.all():
            return [batch]
        slow = np.flatnonzero(~plain)
        return [batch, *self._read(chunk, zip(slow.tolist(), work.carried(slow), strict=True), refused)]

    def _plain(self, work: FileColumns, numbers: Ints, extra: pa.Array) -> tuple[pa.RecordBatch, Mask]:
        """The rows of the archive for the rows of a file whose cells are all plain, and which rows these are."""
        time = work.moments(self._event.time).ms
        known = pc.add(time, self._reading.known_after_ms) if self._reading.known is None else work.moments(self._reading.known).ms
        plain = work.plain & self._certain(work, time, known)
        length = len(plain)
        arrays = {
            TOPIC: pa.repeat(self._table.topic, length),
            PARTITION: pa.repeat(pa.scalar(0, pa.int64()), length),
            OFFSET: pa.array(numbers),
            KNOWN: _stored_moment(known, plain),
            TIME: _stored_moment(time, plain),
            ID: work.fields[self._event.id].cast(pa.string()) if self._event.id else pa.nulls(length, pa.string()),
            EXTRA: extra,
        }
        columns = [arrays[name] if name in arrays else work.fields[name] for name in self._table.schema.names]
        batch = pa.record_batch(columns, self._table.schema)
        return (batch if plain.all() else batch.filter(pa.array(plain))), plain

    def _certain(self, work: FileColumns, time: pa.Array, known: pa.Array) -> Mask:
        """Which rows surely fulfil what the live path asks of an event beyond the types of its fields."""
        future_ms = self._event.future_ms
        certain = pc.and_(pc.less_equal(time, pc.add(known, future_ms)), pc.less_equal(known, min(self._now_ms + future_ms, LAST_MS)))
        for name, values in work.fields.items():
            if not self._event.nullable(name):
                certain = pc.and_(certain, values.is_valid())
        for name in self._keys:
            length = pc.binary_length(work.fields[name])
            certain = pc.and_(certain, pc.fill_null(pc.and_(pc.greater(length, 0), pc.less_equal(length, KEY_BYTES)), True))
        for names in self._joined:
            for name in names:  # each so short that all together fit, however they are escaped
                surely = pc.less_equal(pc.binary_length(work.fields[name].cast(pa.string())), KEY_BYTES // (2 * len(names)) - len(names))
                certain = pc.and_(certain, pc.fill_null(surely, True))
        for name in self._numbers:
            within = pc.and_(pc.less_equal(work.fields[name], EXACT), pc.greater_equal(work.fields[name], -EXACT))
            certain = pc.and_(certain, pc.fill_null(within, True))
        found = mask_of(certain, null=False) & (work.text_bytes() < _SURELY_FITS)
        if self._event.type is not None and self._type_column is not None:
            found &= work.says(self._type_column, str(self._event.type.value))
        return found & ~work.has_undeclared() if self._event.extra == "refuse" else found

    def _read(
        self, chunk: Chunk, events: Iterable[tuple[int, Carried | Refused | None]], refused: list[RefusedRow]
    ) -> list[pa.RecordBatch]:
        """The rows of events that are read as the live path reads them. `events`: the place in the chunk, and the row; None if it is no event."""
        batches, accepted = [], list[Whole]()
        reader = self._table.reader if isinstance(chunk.rows, list) else self._of_table
        for row, carried in events:
            if carried is None:
                self._passed += 1
                continue
            number = int(chunk.numbers[row])
            try:
                if isinstance(carried, Refused):
                    raise carried
                accepted.append(self._whole(number, carried, reader))
            except Refused as error:
                column = self._at_fault(error)
                line = None if chunk.lines is None else int(chunk.lines[row])
                refused.append(RefusedRow(number, line, error.reason, column, _shown(chunk.rows, row, column, carried), error.message))
            if len(accepted) == AT_ONCE:
                batches.append(self._table.batch(0, accepted))
                accepted = []
        return [*batches, self._table.batch(0, accepted)]

    def _whole(self, number: int, carried: Carried, reader: WholeReader) -> Whole:
        """The event of a row. Raises Refused."""
        known_ms = self._known(carried)
        self._check_type(carried)
        try:
            event = reader.check(carried.body, Attributes(id=carried.id, recordedtime=known_ms), self._now_ms)
        except Refused as error:
            if error.reason is Reason.BAD_TIME and carried.time_ms is not None:
                self._check_moment(self._event.time, carried.time_ms)
            raise
        for name in self._other_moments:
            self._check_moment(name, getattr(event.data, name))
        return Whole(number, event, rest_text(reader.rest))

    def _check_moment(self, name: str, given: str | int) -> None:
        """Raises Refused for a time that nobody can mean; it was read in the unit of the file, or else of its field."""
        moment(given, name, self._event.earliest_ms, self._rules.times.unit or self._event.unit(name) or "ms")

    def _check_type(self, carried: Carried) -> None:
        """Raises Refused for a row that says that it is of another type."""
        if self._event.type is None or self._type_column is None:
            return
        try:
            found = _VALUE.decode(carried.body)
        except DECODE_ERRORS:
            return  # the reader says what is wrong with it
        given = member_at(found, self._event.type.keys)
        given = found.get(self._type_column) if given is None and isinstance(found, dict) else given
        if given is not None and str(given) != str(self._event.type.value):
            told = f"{self._type_column} is {given!r:.80}, of {self._event.name!r} it is {self._event.type.value!r}"
            raise Refused(Reason.WRONG_EVENT, told, self._type_column)

    def _known(self, carried: Carried) -> int:
        if self._reading.known is None:
            return self._now_ms if carried.time_ms is None else carried.time_ms + self._reading.known_after_ms
        if carried.known is None:
            raise Refused(Reason.MISSING_FIELD, "when it became known is null", self._reading.known)
        _, ms = self._known_times.one(carried.known, self._reading.known)
        if ms is None:
            raise Refused(Reason.BAD_TIME, f"{self._reading.known} is {carried.known!r:.80}, no time", self._reading.known)
        return ms

    def _of_line(self, line: bytes) -> Carried | Refused | None:
        """A line of JSON as its publisher writes it: renamed, its times as the event declares them. None for a line that is no event."""
        try:
            change = change_in(line, self._event)
        except PassedOver:
            return None
        except Refused as error:
            return error
        line, id = (line, None) if change is None else change
        try:
            members = opened(line, self._tree)
        except DECODE_ERRORS as error:
            return explain_data(line, error, self._table.reader.published.values(), self._event.id)
        known = self._reading.known
        given = _VALUE.decode(members[known]) if known in members else None
        changed = self._rename(members)
        if self._null_tokens:
            void = [name for name, text in members.items() if isinstance(text, msgspec.Raw) and bytes(text) in self._null_tokens]
            members |= dict.fromkeys(void, _NULL)
            changed |= bool(void)
        time_ms: int | None = None
        for name, kind in self._moments.items():
            place, key = place_of(members, self._event.keys(name)), self._event.keys(name)[-1]
            if place is None or not isinstance(place[key], msgspec.Raw):
                continue
            value = _VALUE.decode(place[key])
            try:
                found, ms = self._times.of(self._event.unit(name)).field(value, name, kind)
            except Refused as error:
                return error
            time_ms = ms if name == self._event.time else time_ms
            unit = self._event.unit(name)
            if unit is not None and ms is not None:
                found = value if type(value) is int and not self._rules.times.unit else _in_unit(value, ms, unit)
            if found is not value:
                place[key], changed = msgspec.Raw(_JSON.encode(found)), True
        return Carried(_JSON.encode(members) if changed else line, time_ms, given, id)

    def _rename(self, members: dict[str, Any]) -> bool:
        """Puts the members that a file calls otherwise where the publisher has them; whether there were any."""
        others = [(name, self._event.published(name)) for name in self._event.forms] + [(name, name) for name in self._event.forms]
        wanted = [*self._reading.renamed.items(), *(item for item in others if item[0] not in self._reading.renamed)]
        changed = False
        for name, column in wanted:
            keys = self._event.keys(name)
            if column in members and keys != (column,) and (name in self._reading.renamed or place_of(members, keys) is None):
                changed |= (moved := put(members, keys, members[column]))
                if moved:
                    del members[column]
        return changed

    def _at_fault(self, error: Refused) -> str:
        """The column that an error is about, as the file calls it."""
        if error.field in ("recordedtime", "timestamp"):
            return self._reading.known or self._reading.column(self._event.time)
        return self._reading.column(error.field or "")


def _in_unit(value: Any, ms: int, unit: str) -> Any:
    """A time as a number of a unit; what it was if that is no whole number."""
    scaled, part = of_ms(ms, unit)
    return value if part else scaled


def _names(lines: Iterable[bytes]) -> set[str]:
    """The names that these lines of JSON have."""
    found: set[str] = set()
    for line in lines:
        try:
            found.update(_OBJECT.decode(line))
        except DECODE_ERRORS:
            continue
    return found


def _member(line: bytes, name: str) -> Any:
    """A member of a line of JSON; None without one."""
    try:
        return _VALUE.decode(_OBJECT.decode(line)[name])
    except (KeyError, *DECODE_ERRORS):
        return None


def _stored_moment(ms: pa.Array, plain: Mask) -> pa.Array:
    return only(ms, plain).cast(pa.timestamp("ms", "UTC")).cast(MOMENT)


def _shown(rows: pa.RecordBatch | list[bytes], row: int, column: str, carried: Carried | Refused) -> str:
    """What the file has in a column, as text."""
    if isinstance(rows, list):
        value = _member(carried.body if isinstance(carried, Carried) and carried.id is not None else rows[row], column)
    elif column in rows.schema.names:
        value = texts_of_stamps(rows.column(column).slice(row, 1))[0].as_py()
    else:
        return ""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return "" if value is None else str(value)[:_SHOWN]
