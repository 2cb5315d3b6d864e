"""A field of an archived event, in SQL: wherever the archive has it, and however a publisher or a file wrote it."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.archive.columns import EXTRA, LOADED, TOPIC
from tidemill.declarations import Event
from tidemill.limits import EXACT
from tidemill.timestamps import FIRST_MS, LAST_MS
from tidemill.verify.expressions import quoted, text

_STORED = {pa.string(): str, pa.large_string(): str, pa.int64(): int, pa.float64(): float, pa.bool_(): bool}
_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}
_JSON: dict[type, tuple[str, ...]] = {
    str: ("VARCHAR",),
    int: ("BIGINT", "UBIGINT"),
    float: ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE"),
    bool: ("BOOLEAN",),
}
_OF_FILE = f"starts_with({TOPIC}, {text(LOADED)})"
_DIGITS, _NUMBER = r"^([+-]?[0-9]+)\.?$", r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_SPACES = "".join(sign for sign in map(chr, range(0x3001)) if sign.isspace())


def field_sql(event: Event, name: str, archive: pa.Table) -> str:
    """A field of an archived event: from its own column, or from what the event carried beyond its columns; null where it has another
    type, but a whole number may stand for a float, and 300.0 for a whole number. In a row of a file a text stands for what it states, since
    CSV has nothing else, and the field may lie under the name of a column."""
    kind, found = event.base_type(name), list[str]()
    if name in archive.column_names:
        stored = _STORED.get(archive.field(name).type)
        found += [f"CAST({quoted(name)} AS {_TYPES[kind]})"] if stored is kind or (stored is int and kind is float) else []
        found += [_whole_sql(quoted(name))] if stored is float and kind is int else []
    carries = archive[EXTRA].null_count < len(archive)
    of_files = carries and bool(pc.any(pc.starts_with(archive[TOPIC], LOADED)).as_py())
    path = _path_sql(event, name, of_files)
    found += [_carried_sql(event, name, path, of_files)] if carries else []
    sql = f"coalesce({', '.join([*found, f'CAST(NULL AS {_TYPES[kind]})'])})"
    if not event.has_default(name) or event.forms[name].default is None:
        return sql
    sql = f"coalesce({sql}, CAST({_literal(event.forms[name].default)} AS {_TYPES[kind]}))"
    is_null = f"json_type({EXTRA}, {path}) = 'NULL'" if carries and event.nullable(name) else "false"
    return f"CASE WHEN {is_null} THEN NULL ELSE {sql} END"


def _literal(value: str | float) -> str:
    return text(value) if isinstance(value, str) else repr(value)


def _path_sql(event: Event, name: str, of_files: bool) -> str:
    """Where a field lies in what an event carried: a JSON pointer. `of_files`: there are rows of files, which may have it in a column that is
    named as the publisher calls the field, or as the field itself."""
    own, *columns = dict.fromkeys(map(_pointer, (event.keys(name), (event.published(name),), (name,))))
    if not of_files or not columns:
        return own
    chosen = [f"WHEN json_type({EXTRA}, {path}) IS NOT NULL OR NOT {_OF_FILE} THEN {path}" for path in (own, *columns[:-1])]
    return f"CASE {' '.join(chosen)} ELSE {columns[-1]} END"


def _pointer(keys: Sequence[str]) -> str:
    return text("".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys))


def _carried_sql(event: Event, name: str, path: str, of_files: bool) -> str:
    kind, form = event.base_type(name), event.forms.get(name)
    kinds = ", ".join(map(text, _JSON[kind]))
    carried, carried_type = f"json_extract_string({EXTRA}, {path})", f"json_type({EXTRA}, {path})"
    chosen = f"WHEN {carried_type} IN ({kinds}) THEN TRY_CAST({carried} AS {_TYPES[kind]})"
    if kind is int:
        chosen += f" WHEN {carried_type} = 'DOUBLE' THEN {_whole_sql(f'TRY_CAST({carried} AS DOUBLE)')}"
    if of_files and kind is not str:
        chosen += f" WHEN {carried_type} = 'VARCHAR' AND {_OF_FILE} THEN {_of_cell_sql(carried, kind)}"
    if form is not None and form.lenient:
        chosen += f" WHEN {carried_type} = 'VARCHAR' THEN {_of_text_sql(carried, kind)}"
    sql = f"CASE {chosen} END"
    return sql if form is None or form.unit in (None, "ms") else _in_ms_sql(sql, form.unit)


def _of_text_sql(said: str, kind: type) -> str:
    """What a text states, of a field that takes texts for numbers and truths."""
    if kind is bool:
        return f"CASE WHEN lower({said}) IN ('true', 't', '1') THEN true WHEN lower({said}) IN ('false', 'f', '0') THEN false END"
    pattern = r"[+-]?[0-9]{1,18}(\.0*)?" if kind is int else _NUMBER
    number = f"TRY_CAST(split_part({said}, '.', 1) AS BIGINT)" if kind is int else f"TRY_CAST({said} AS DOUBLE)"
    return f"CASE WHEN regexp_full_match({said}, {text(pattern)}) AND isfinite(CAST({number} AS DOUBLE)) THEN {number} END"


def _of_cell_sql(cell: str, kind: type) -> str:
    """What a text in a file states: spaces around it count nothing, and a whole number may be written as any number."""
    cell = f"trim({cell}, {text(_SPACES)})"
    if kind is bool:
        return _of_text_sql(cell, bool)
    number = f"TRY_CAST(regexp_extract({cell}, {text(f'^({_NUMBER})$')}, 1) AS DOUBLE)"
    if kind is float:
        return f"CASE WHEN isfinite({number}) THEN {number} END"
    return f"coalesce(TRY_CAST(regexp_extract({cell}, {text(_DIGITS)}, 1) AS BIGINT), {_whole_sql(number)})"


def _in_ms_sql(number: str, unit: str) -> str:
    wide, parts = f"CAST({number} AS HUGEINT)", {"us": 1_000, "ns": 1_000_000}.get(unit)
    ms = (
        f"{wide} * {86_400_000 if unit == 'd' else 1_000}"
        if parts is None
        else f"({wide} - ({wide} % {parts} + {parts}) % {parts}) // {parts}"
    )
    return f"CASE WHEN {ms} BETWEEN {FIRST_MS} AND {LAST_MS} THEN CAST({ms} AS BIGINT) END"


def _whole_sql(number: str) -> str:
    """A double that is a whole number, as one; null where it is none, or so large that it need not be the one that was meant."""
    return f"CASE WHEN {number} = trunc({number}) AND abs({number}) < {EXACT} THEN CAST({number} AS BIGINT) END"
