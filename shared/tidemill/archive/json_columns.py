"""Lines of JSON as columns: the lines whose members have the declared types. All other lines are read one at a time, by the live path."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidemill.archive.file_rules import FileRules
from tidemill.archive.rows import rest_text
from tidemill.declarations import Event
from tidemill.records import DECODE_ERRORS

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_INT = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES: dict[type, Any] = {int: _INT, float: float, bool: bool, str: str}
_LOOKED_AT = 100  # lines of a chunk that show whether its events carry undeclared members


class JsonRows(NamedTuple):
    """Lines as rows. `rows`: the columns of the event, as the file names them; `extra`: what the lines carry beyond them, as they spell it;
    `places`: where the rows stand among the lines."""

    rows: pa.RecordBatch
    extra: pa.Array
    places: npt.NDArray[np.int64]


class JsonColumns:
    """Reads lines of JSON by the rules of a file. `moments`: the fields that are times; `longest`: longer lines, in bytes, are left out."""

    def __init__(self, event: Event, reading: FileRules, moments: Collection[str], longest: int) -> None:
        self._longest = longest
        types = {reading.column(name): _INT | str if name in moments else _TYPES[kind] for name, kind in event.types.items()}
        self._declared = frozenset(types)
        self._hidden = frozenset(name for name in reading.renamed if name not in types)  # such a member would be the field, or be replaced
        if reading.known:
            types.setdefault(reading.known, _INT | float | str)
        fields = [(f"f{place}", kind | None, None) for place, kind in enumerate(types.values())]
        names = dict(zip((name for name, *_ in fields), types, strict=True))
        self._read = {column: attrgetter(name) for name, column in names.items()}
        self._schema = {column: pa.float64() for column, kind in types.items() if kind is float}
        strict, loose = (
            msgspec.json.Decoder(msgspec.defstruct("Line", fields, rename=names, forbid_unknown_fields=forbid, gc=False)).decode
            for forbid in (True, False)
        )
        self._decode_strict, self._decode_loose = strict, loose

    def read(self, lines: Sequence[bytes]) -> JsonRows:
        """Those of the lines that fit."""
        found, extra, places = self._with_extra(lines) if self._carries_more(lines) else self._bare(lines)
        try:
            arrays = [pa.array(list(map(read, found)), self._schema.get(column)) for column, read in self._read.items()]
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # times of several types
            return self.read([])
        rows = pa.record_batch(arrays, list(self._read))
        return JsonRows(rows, pa.array(extra, pa.string()), np.array(places, np.int64))

    def _carries_more(self, lines: Sequence[bytes]) -> bool:
        for line in islice(lines, _LOOKED_AT):
            try:
                if not self._declared.issuperset(_OBJECT.decode(line)):
                    return True
            except DECODE_ERRORS:
                continue
        return False

    def _bare(self, lines: Sequence[bytes]) -> tuple[list[Any], list[str | None], list[int]]:
        """Lines with declared members alone."""
        found, places, decode, longest = [], [], self._decode_strict, self._longest
        for place, line in enumerate(lines):
            try:
                row = decode(line)
            except DECODE_ERRORS:
                continue
            if len(line) <= longest:
                found.append(row)
                places.append(place)
        return found, [None] * len(found), places

    def _with_extra(self, lines: Sequence[bytes]) -> tuple[list[Any], list[str | None], list[int]]:
        found, extra, places = [], list[str | None](), []
        for place, line in enumerate(lines):
            try:
                if not line.isascii():
                    line.decode()  # the decoder passes over undeclared members, whatever bytes they are
                row, members = self._decode_loose(line), _OBJECT.decode(line)
            except DECODE_ERRORS:
                continue
            if len(line) <= self._longest and self._hidden.isdisjoint(members):
                found.append(row)
                extra.append(rest_text({name: text for name, text in members.items() if name not in self._declared}))
                places.append(place)
        return found, extra, places
