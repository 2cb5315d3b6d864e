"""Rows of a file as rows of the archive, or refused by the same rules and for the same reasons as at the door (`routing.events`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import Cells, Mask, converted, from_json, plain
from tidemill.archive.columns import ARROW, EXTRA, ID, KNOWN, MOMENT, OFFSET, PARTITION, TIME, TOPIC
from tidemill.archive.files import Chunk, Objects
from tidemill.archive.moments import MomentReader, Moments, TimeRule
from tidemill.declarations import Event
from tidemill.durations import format_ms
from tidemill.errors import UnusableFile
from tidemill.limits import KEY_BYTES, MESSAGE_BYTES
from tidemill.routing.refusals import Reason, Refused, bad_key

_SHOWN = 200
_JSON = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True)
class Reading:
    """How a file is read. `renamed`: the field's name -> the column's name, where they differ; `known`: the column with the moment when an
    event became known, else that is its time and `known_after_ms`; `nulls`: texts that mean null."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    known: str | None = None
    known_after_ms: int = 0
    times: TimeRule = TimeRule()
    nulls: tuple[str, ...] = ()

    def written(self) -> bytes:
        """The same bytes for the same rules."""
        return msgspec.json.encode([sorted(self.renamed.items()), self.known, self.known_after_ms, *self.times, sorted(set(self.nulls))])


class RefusedRow(NamedTuple):
    """A row that was refused: its number in the file, from 0, the line of a text file, from 1, and why. `column`: as the file calls it."""

    number: int
    line: int | None
    reason: str
    column: str
    value: str
    detail: str


class Taken(NamedTuple):
    """The accepted rows in the order of the file, with the archive's columns. `twice`: how many local times came twice."""

    rows: pa.Table
    refused: list[RefusedRow]
    twice: int


class Taker:
    """Takes the rows of one file. `keys`: fields that are keys of views and models; `moments`: fields besides the event's time that must
    be times; `schema`: the columns that the archive can have."""

    def __init__(
        self, event: Event, reading: Reading, schema: pa.Schema, topic: str, now_ms: int, *, keys: Collection[str], moments: Collection[str]
    ) -> None:
        self._event, self._reading, self._schema, self._topic, self._now_ms = event, reading, schema, topic, now_ms
        self._moments = {event.time, *moments}
        self._keys = [name for name in event.fields if name in keys or name == event.id]
        for name in reading.renamed:
            if name not in event.fields:
                near = get_close_matches(name, event.fields, 1)
                raise UnusableFile(
                    f"event {event.name!r} has no field {name!r} for --rename {reading.renamed[name]}={name}",
                    mend=f"name {near[0]!r}" if near else f"name one of {', '.join(event.fields)}",
                )
        reading.times.check()

    def check_columns(self, chunk: Chunk) -> None:
        """Look at the first rows of a file. Raises UnusableFile when columns are missing or not of a type that can be loaded."""
        there = set(chunk.rows.schema.names) if isinstance(chunk.rows, pa.RecordBatch) else {name for row in chunk.rows for name in row}
        if isinstance(chunk.rows, list) and not chunk.rows:
            return
        wanted = {name: self._column(name) for name in self._event.fields}
        for name, column in self._reading.renamed.items():
            if column in there and name in there and name not in self._reading.renamed.values():
                raise UnusableFile(f"there is a column {name!r} besides {column!r}, which is renamed to it", mend="leave --rename out")
        missing = [
            column
            for name, column in wanted.items()
            if column not in there and (not self._event.nullable(name) or name in self._reading.renamed)
        ]
        missing += [self._reading.known] if self._reading.known and self._reading.known not in there else []
        if missing:
            raise self._missing(missing, there - set(wanted.values()), there)
        self._take(chunk, first=True)

    def take(self, chunk: Chunk) -> Taken:
        """The rows of a chunk. Raises UnusableFile."""
        return self._take(chunk, first=False)

    def _missing(self, missing: list[str], free: set[str], there: set[str]) -> UnusableFile:
        near = []
        for name in missing:
            simple = {_simple(column): column for column in sorted(free)}
            found = get_close_matches(_simple(name), simple, 1)
            near += [f"--rename '{simple[found[0]]}={name}'"] if found and name in self._event.fields else []
        columns = ", ".join(sorted(there)) or "none"
        return UnusableFile(
            f"there is no column {' and no column '.join(repr(name) for name in missing)}; the columns are: {columns}",
            mend=f"perhaps {' '.join(near)}" if near else "name the column of a field with --rename COLUMN=FIELD",
        )

    def _column(self, name: str) -> str:
        return self._reading.renamed.get(name, name)

    def _take(self, chunk: Chunk, *, first: bool) -> Taken:
        work = _Work(chunk, self._event, self._reading)
        fields = {
            name: work.moments(name, first=first).field(kind) if name in self._moments else work.field(name, kind)
            for name, kind in self._event.types.items()
        }
        for name in self._event.fields:
            work.not_null(name, fields[name])
        for name in self._keys:
            if self._event.base_type(name) is str:
                work.bytes_of_key(name, fields[name], is_id=name == self._event.id)
        time = work.times[self._event.time].ms
        known = self._known(work, time, first=first)
        self._check_order(work, time, known)
        lacking = {name: column for name, column in fields.items() if name not in self._schema.names}
        rest = work.undeclared(lacking)
        work.size([column for column in [*fields.values(), rest] if pa.types.is_string(column.type)])
        rows = {
            TOPIC: pa.repeat(self._topic, work.length),
            PARTITION: pa.repeat(pa.scalar(0, pa.int64()), work.length),
            OFFSET: pa.array(chunk.numbers),
            KNOWN: _moment(known),
            TIME: _moment(time),
            ID: fields[self._event.id].cast(pa.string()) if self._event.id else pa.nulls(work.length, pa.string()),
            EXTRA: rest,
            **fields,
        }
        table = pa.table({name: rows[name] for name in self._schema.names}, schema=self._schema)
        accepted = table.filter(pa.array(~work.bad)) if work.bad.any() else table
        return Taken(accepted, work.told(), sum(moments.twice for moments in work.times.values()))

    def _known(self, work: _Work, time: pa.Array, *, first: bool) -> pa.Array:
        if self._reading.known is None:
            return pc.add(time, self._reading.known_after_ms)
        known = work.known(self._reading.known, first=first)
        work.refuse(_mask(known.is_null()), lambda _: Refused(Reason.MISSING_FIELD, "when it became known is null"), self._reading.known)
        return known

    def _check_order(self, work: _Work, time: pa.Array, known: pa.Array) -> None:
        """As at the door: an event becomes known now at the latest, and lies ahead of that by `future` at most."""
        future_ms = self._event.future_ms
        times, knowns = (pc.fill_null(column, 0).to_numpy(zero_copy_only=False) for column in (time, known))

        def ahead(what: str, of: str, by: npt.NDArray[np.int64], limit: npt.NDArray[np.int64]) -> Any:
            def told(row: int) -> Refused:
                said = f"{what} is {by[row]} ms ahead of {of} ({limit[row]}), more than {format_ms(future_ms)} (future= of the event)"
                return Refused(Reason.FUTURE_TIME, said, what)

            return told

        now = np.full(work.length, self._now_ms)
        column = self._reading.known or self._event.time
        work.refuse(knowns > now + future_ms, ahead("the moment it became known", "now", knowns - now, now), column)
        late = ahead(self._event.time, "the moment it became known", times - knowns, knowns)
        work.refuse(times > knowns + future_ms, late, self._column(self._event.time))


class _Work:
    """One chunk on its way: which rows are bad, and why."""

    def __init__(self, chunk: Chunk, event: Event, reading: Reading) -> None:
        self._chunk, self._event, self._reading = chunk, event, reading
        self._rows: pa.RecordBatch | Objects = chunk.rows
        self.length = len(chunk.numbers)
        self.bad: Mask = np.zeros(self.length, bool)
        self.times: dict[str, Moments] = {}
        self._why: dict[int, tuple[Refused, str]] = {}
        self._absent: dict[str, Mask] = {}
        self._plain: dict[str, Cells] = {}

    def field(self, name: str, kind: type) -> pa.Array:
        """The column of a declared field."""
        column = self._reading.renamed.get(name, name)
        found = self._get(column)
        if found is None:
            return pa.nulls(self.length, ARROW[kind])
        if isinstance(found, pa.Array) and kind in (int, str) and (pa.types.is_timestamp(found.type) or pa.types.is_date(found.type)):
            return self._moments(name, column, first=False).field(kind)
        cells = from_json(found, name, kind) if isinstance(found, list) else converted(found, name, kind)
        self._refuse_cells(cells.refused, column)
        return cells.values

    def moments(self, name: str, *, first: bool) -> Moments:
        """The times of a declared field."""
        column = self._reading.renamed.get(name, name)
        self.times[name] = self._moments(name, column, first=first)
        return self.times[name]

    def known(self, column: str, *, first: bool) -> pa.Array:
        """The times of the column that says when events became known."""
        return self._moments(column, column, first=first).ms

    def _moments(self, name: str, column: str, *, first: bool) -> Moments:
        found = self._get(column)
        reader = MomentReader(name, self._reading.times)
        moments = reader.read(pa.nulls(self.length) if found is None else found)
        if first:
            reader.check_unit(moments)
        self._refuse_cells(moments.refused, column)
        return moments

    def _get(self, column: str) -> pa.Array | list[Any] | None:
        """A column's cells; None when the chunk lacks it."""
        if isinstance(self._rows, list):
            values = [row.get(column, msgspec.UNSET) for row in self._rows]
            if msgspec.UnsetType in set(map(type, values)):
                self._absent[column] = np.array([value is msgspec.UNSET for value in values], bool)
                values = [None if value is msgspec.UNSET else value for value in values]
            return values
        if column not in self._rows.schema.names:
            return None
        if column not in self._plain:
            self._plain[column] = plain(self._rows.column(column), self._reading.nulls, column)
            self._refuse_cells(self._plain[column].refused, column)
        return self._plain[column].values

    def not_null(self, name: str, values: pa.Array) -> None:
        """Refuses rows without a value where the event must have one."""
        if self._event.nullable(name) or not values.null_count:
            return
        column = self._reading.renamed.get(name, name)
        absent = self._absent.get(column)

        def told(row: int) -> Refused:
            if absent is not None and absent[row]:
                return Refused(Reason.MISSING_FIELD, f"{name} is missing", name)
            return Refused(Reason.WRONG_TYPE, f"{name} is null; the event declares it {self._event.base_type(name).__name__}", name)

        self.refuse(_mask(values.is_null()), told, column)

    def bytes_of_key(self, name: str, values: pa.Array, *, is_id: bool) -> None:
        """Refuses rows with a key or an id that is empty or too long."""
        sizes = pc.fill_null(pc.binary_length(values), 1).to_numpy(zero_copy_only=False)
        wrong = (sizes == 0) | (sizes > KEY_BYTES)
        self.refuse(wrong, lambda row: bad_key(name, is_id, f"it has {sizes[row]} bytes"), self._reading.renamed.get(name, name))

    def size(self, texts: list[pa.Array]) -> None:
        """Refuses rows whose text is larger than an event may be."""
        sizes = sum(
            (pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False).astype(np.int64) for text in texts),
            np.zeros(self.length, np.int64),
        )
        told = "the row has {} bytes of text, {} are allowed"
        self.refuse(sizes > MESSAGE_BYTES, lambda row: Refused(Reason.OVERSIZED, told.format(sizes[row], MESSAGE_BYTES)), "")

    def undeclared(self, lacking: Mapping[str, pa.Array]) -> pa.Array:
        """What the rows carry besides declared fields, and in fields that the table cannot have, as JSON."""
        taken = {self._reading.renamed.get(name, name) for name in self._event.fields}
        if isinstance(self._rows, list):
            names = set(chain.from_iterable(self._rows)) - taken
            carried = [{name: value for name, value in row.items() if name in names} for row in self._rows] if names else []
        else:
            columns = {name: _as_json(self._bare(self._rows, name)) for name in self._rows.schema.names if name not in taken}
            carried = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if not carried and not lacking:
            return pa.nulls(self.length, pa.string())
        carried = carried or [{} for _ in range(self.length)]
        for name, column in lacking.items():
            for row, value in zip(carried, column.to_pylist(), strict=True):
                row[name] = value
        return pa.array(map(_object, carried), pa.string())

    def _bare(self, rows: pa.RecordBatch, name: str) -> pa.Array:
        """An undeclared column without its coding. Bytes are text only in a text file."""
        column = rows.column(name)
        return column if self._chunk.lines is None and pa.types.is_binary(column.type) else self._get(name)

    def refuse(self, mask: Mask, told: Any, column: str) -> None:
        """Refuses the rows of a mask, but those that are refused already. `told`: row -> Refused."""
        for row in np.flatnonzero(mask & ~self.bad).tolist():
            self._why[row] = told(row), column
        self.bad |= mask

    def _refuse_cells(self, refused: Mapping[int, Refused], column: str) -> None:
        for row, error in refused.items():
            if not self.bad[row]:
                self._why[row] = error, column
                self.bad[row] = True

    def told(self) -> list[RefusedRow]:
        """The refused rows in the order of the file."""
        lines = self._chunk.lines
        found = [
            RefusedRow(
                int(self._chunk.numbers[row]),
                None if lines is None else int(lines[row]),
                error.reason,
                column,
                self._shown(row, column),
                error.message,
            )
            for row, (error, column) in self._why.items()
        ]
        found += [RefusedRow(row.number, row.line, row.error.reason, "", row.text, row.error.message) for row in self._chunk.unread]
        return sorted(found)

    def _shown(self, row: int, column: str) -> str:
        if isinstance(self._rows, list):
            value = self._rows[row].get(column)
        else:
            value = self._rows.column(column)[row] if column in self._rows.schema.names else None
        if isinstance(value, pa.Scalar):
            value = value.cast(pa.string()).as_py() if pa.types.is_timestamp(value.type) else value.as_py()
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        return "" if value is None else str(value)[:_SHOWN]


def _simple(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _mask(mask: pa.Array) -> Mask:
    found: Mask = mask.to_numpy(zero_copy_only=False)
    return found


def _moment(ms: pa.Array) -> pa.Array:
    return ms.cast(pa.timestamp("ms", "UTC")).cast(MOMENT)


def _object(values: dict[str, Any]) -> str | None:
    carried = {name: value for name, value in values.items() if value is not None}
    return _JSON.encode(carried).decode() if carried else None


def _as_json(column: pa.Array) -> list[Any]:
    """The cells of an undeclared column as JSON can hold them: times as text, bytes in Base64."""
    if pa.types.is_timestamp(column.type):
        zone = "Z" if column.type.tz else ""
        column = pc.strftime(column.cast(pa.timestamp(column.type.unit, "UTC")) if zone else column, f"%Y-%m-%dT%H:%M:%S{zone}")
    elif pa.types.is_duration(column.type):
        column = column.cast(pa.int64())
    found: list[Any] = column.to_pylist()
    return found
