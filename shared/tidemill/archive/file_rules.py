"""By which rules a file of history is read, and whether its columns are those of the event."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import msgspec

from tidemill.archive.times import TimeRule
from tidemill.declarations import Event
from tidemill.errors import UnusableFile

_CHANGES = {"op", "source"}, {"schema", "payload"}
"""Columns of files of changes: as Debezium writes them, without its schema and with it."""


@dataclass(frozen=True)
class FileRules:
    """How a file is read. `renamed`: the field's name -> the column's name, where they differ; `known`: the column with the moment when an
    event became known, else that is its time and `known_after_ms`; `nulls`: texts that mean null."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    known: str | None = None
    known_after_ms: int = 0
    times: TimeRule = TimeRule()
    nulls: tuple[str, ...] = ()

    def resolved(self, event: Event, there: Collection[str]) -> FileRules:
        """The same for a file with these columns, in which a field may have its publisher's name or its own."""
        found = {name: event.published(name) for name in event.forms if event.published(name) in there and name not in self.renamed}
        found = {name: column for name, column in found.items() if name != column}
        return replace(self, renamed=found | dict(self.renamed)) if found else self

    def written(self) -> bytes:
        """The same bytes for the same rules."""
        return msgspec.json.encode([sorted(self.renamed.items()), self.known, self.known_after_ms, *self.times, sorted(set(self.nulls))])

    def column(self, name: str) -> str:
        """The column of a field."""
        return self.renamed.get(name, name)


def check_columns(event: Event, reading: FileRules, there: Collection[str]) -> None:
    """Raises UnusableFile when a file with these columns lacks one that the event or an option needs."""
    for name, column in reading.renamed.items():
        if column in there and name in there and name not in reading.renamed.values():
            raise UnusableFile(f"there is a column {name!r} besides {column!r}, which is that field", mend="leave one of them out")
    needed = [name for name in event.fields if name in reading.renamed or not (event.nullable(name) or event.has_default(name))]
    missing = [reading.column(name) for name in needed if reading.column(name) not in there]
    missing += [reading.known] if reading.known and reading.known not in there else []
    if not missing:
        return
    if event.envelope is not None and any(changes <= set(there) for changes in _CHANGES):
        members = [f"{event.published(name)!r}" for name in needed]
        raise UnusableFile(
            "these are records of changes; a file has plain rows",
            mend=f"write the row of each change, with the members beside its columns: {', '.join(members)} must be there",
        )
    free = {_simple(column): column for column in sorted(set(there) - set(map(reading.column, event.fields)))}
    near = [(get_close_matches(_simple(name), free, 1), name) for name in missing if name in event.fields]
    options = [f"--rename '{free[found[0]]}={name}'" for found, name in near if found]
    raise UnusableFile(
        f"there is no column {' and no column '.join(map(repr, missing))}; the columns are: {', '.join(sorted(there)) or 'none'}",
        mend=f"perhaps {' '.join(options)}" if options else "name the column of a field with --rename COLUMN=FIELD",
    )


def _simple(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
