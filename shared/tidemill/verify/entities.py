"""Entities of several fields as one text, a second time: a JSON array of texts in which only quotes and backslashes are escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


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
