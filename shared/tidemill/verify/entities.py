"""Entities as text, a second time: of several fields, a JSON array of texts in which only quotes and backslashes are escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tidemill.limits import KEY_BYTES
from tidemill.verify.expressions import SqlPart


def entity_text(names: Sequence[str], given: Mapping[str, object]) -> str | None:
    """The entity that a request asked for by values under these names; None where there is none."""
    texts = [None if given.get(name) is None else str(given[name]) for name in names]
    if len(texts) == 1:
        return texts[0]
    quoted = ['"' + "".join("\\" * (sign in '"\\') + sign for sign in text) + '"' for text in texts if text is not None]
    return "[" + ",".join(quoted) + "]" if len(quoted) == len(texts) else None


def parts_of(entity: str, count: int) -> list[str]:
    """The texts of the `count` fields of an entity."""
    return [entity] if count == 1 else json.loads(entity, strict=False)


def key_sql(field: SqlPart) -> str:
    """An entity or a subject as text; null where there is none, or one that no event may have."""
    sql = f"CAST({field.sql} AS VARCHAR)"
    return f"CASE WHEN strlen({sql}) BETWEEN 1 AND {KEY_BYTES} THEN {sql} END"


def entity_sql(fields: Sequence[str], found: Mapping[str, SqlPart]) -> str:
    """The entity of a view as text: of several fields, a JSON array of their texts. `found`: the SQL of each field."""
    parts = [key_sql(found[name]) for name in fields]
    if len(parts) == 1:
        return parts[0]
    quoted = [f"""replace(replace({part}, '\\', '\\\\'), '"', '\\"')""" for part in parts]
    joined = """ || '","' || """.join(quoted)
    return key_sql(SqlPart(f"""('["' || {joined} || '"]')""", str))
