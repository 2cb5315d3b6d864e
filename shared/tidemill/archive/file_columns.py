"""The columns of a file as the columns of an event: which cells are plain, and the other rows as the JSON that they stand for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.cells import Mask, bare, json_cell, mask_of, only, typed
from tidemill.archive.file_rules import FileRules
from tidemill.archive.times import Moments, Times
from tidemill.archive.undeclared import objects
from tidemill.declarations import Event
from tidemill.errors import UnusableFile
from tidemill.routing.refusals import Reason, Refused

_JSON = msgspec.json.Encoder()
_MENDS = {"double": "write it as text or as whole numbers: 300 and 300.0 would be two texts", "bool": "declare it bool"}


class Carried(NamedTuple):
    """A row as the JSON of an event, the ms of its time (None: it is no time), and what the column of `known` has. `id`: of a change of a
    database, which has no other."""

    body: bytes
    time_ms: int | None
    known: Any
    id: str | None = None


class FileColumns:
    """The columns of one chunk as those of the event. `fields`: the typed ones; `plain`: the rows whose cells are all plain."""

    def __init__(
        self, rows: pa.RecordBatch, is_text: bool, event: Event, reading: FileRules, times: Times, known: Times, moments: Collection[str]
    ) -> None:
        self._rows, self._is_text, self._event, self._reading = rows, is_text, event, reading
        self._times = {name: times.of(event.unit(name)) for name in event.fields}
        self._known = known
        self._bare: dict[str, pa.Array] = {}
        self._undecoded: dict[str, Mask] = {}
        self._read: dict[str, Moments] = {}
        self.plain: Mask = np.ones(len(rows), bool)
        self.fields = {name: self._field(name, kind, name in moments) for name, kind in event.types.items()}
        taken = {reading.column(name) for name in event.fields}
        self._undeclared = {name: self._get(name) for name in rows.schema.names if name not in taken}

    def _field(self, name: str, kind: type, is_moment: bool) -> pa.Array:
        """Its typed column. A null of a field with a default is the default: a table cannot lack a cell."""
        column = self._get(self._reading.column(name))
        if is_moment or (kind in (int, str) and _is_stamp(column.type)):
            return self._filled(name, self.moments(name).field(kind), self.moments(name).plain)
        cells = typed(column, kind)
        if cells is None:
            raise UnusableFile(
                f"column {self._reading.column(name)!r} is {column.type}, the event declares {kind.__name__}",
                mend=_MENDS.get(str(column.type), "write it as another type"),
            )
        self.plain &= cells.plain
        return self._filled(name, cells.values, cells.plain)

    def _filled(self, name: str, values: pa.Array, plain: Mask) -> pa.Array:
        if not self._event.has_default(name) or self._event.forms[name].default is None:
            return values
        return only(pc.fill_null(values, pa.scalar(self._event.forms[name].default, values.type)), plain)

    def moments(self, name: str) -> Moments:
        """The times of a field, or of the column that says when events became known."""
        if name not in self._read:
            column = self._reading.column(name)
            self._read[name] = self._times.get(name, self._known).read(self._get(column), column)
            self.plain &= self._read[name].plain
        return self._read[name]

    def _get(self, name: str) -> pa.Array:
        """A bare column; nulls when there is none of the name."""
        if name not in self._bare:
            column = self._rows.column(name) if name in self._rows.schema.names else pa.nulls(len(self._rows))
            if pa.types.is_binary(column.type) and not self._is_text:
                return column
            self._bare[name], good = bare(column, self._reading.nulls)
            self.plain &= good
            if not good.all():
                self._undecoded[name] = ~good
        return self._bare[name]

    def says(self, name: str, text: str) -> Mask:
        """Which rows have this text or number in a column; all rows of a file without the column."""
        if name not in self._rows.schema.names:
            return np.ones(len(self._rows), bool)
        return mask_of(pc.equal(self._get(name).cast(pa.string()), text), null=False)

    def has_undeclared(self) -> Mask:
        """Which rows carry anything that is not declared."""
        return sum((mask_of(column.is_valid(), null=False) for column in self._undeclared.values()), np.zeros(len(self._rows), bool))

    def beyond(self, lacking: Sequence[str]) -> pa.Array:
        """What the rows carry besides columns of the table, as JSON. `lacking`: declared fields without such a column."""
        return objects(self._undeclared | {name: self.fields[name] for name in lacking}, len(self._rows))

    def text_bytes(self) -> npt.NDArray[np.int64]:
        """How many bytes of text the rows have in declared and undeclared columns."""
        texts = [column for column in [*self.fields.values(), *self._undeclared.values()] if pa.types.is_string(column.type)]
        lengths = (pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False) for column in texts)
        return sum(lengths, np.zeros(len(self._rows), np.int64))

    def carried(self, rows: npt.NDArray[np.int64]) -> Iterator[Carried | Refused]:
        """Some rows as JSON."""
        place = pa.array(rows)
        wanted = [*map(self._reading.column, self._event.fields), *filter(None, [self._reading.known])]
        cells = {name: texts_of_stamps(self._get(name)).take(place).to_pylist() for name in wanted}
        undecoded = {name: mask[rows] for name, mask in self._undecoded.items()}
        beyond = objects(self._undeclared, len(self._rows)).take(place).to_pylist()
        for at, more in enumerate(beyond):
            bad = next((name for name, mask in undecoded.items() if mask[at]), None)
            try:
                if bad is not None:
                    raise Refused(Reason.NOT_JSON, f"{bad} is not UTF-8: save the file as UTF-8", bad)
                yield self._carried({name: column[at] for name, column in cells.items()}, more)
            except Refused as error:
                yield error

    def _carried(self, cells: Mapping[str, Any], more: str | None) -> Carried:
        members: dict[str, Any] = {}
        time_ms: int | None = None
        for name, kind in self._event.types.items():
            value = cells[self._reading.column(name)]
            if name in self._read:
                members[name], ms = self._times[name].field(value, name, kind)
                time_ms = ms if name == self._event.time else time_ms
            else:
                members[name] = json_cell(value, kind)
            if members[name] is None and (self._event.nullable(name) or self._event.has_default(name)):
                del members[name]
        body = _JSON.encode(members)
        body = body if more is None else body[:-1] + b"," + more.encode()[1:]
        return Carried(body, time_ms, cells.get(self._reading.known or ""))


def texts_of_stamps(column: pa.Array) -> pa.Array:
    """A column with its timestamps as text, others as they are."""
    return column.cast(pa.string()) if _is_stamp(column.type) else column


def _is_stamp(found: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))
