"""The rules by which an event is taken or refused, when they change: what was published by those of before is taken by them still."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tidemill.declarations.written import WrittenEvent, WrittenFormer, read_event
from tidemill.errors import DeclarationError


def base_of(kind: str) -> str:
    """A type without `| None`, as it is written."""
    return kind.removesuffix(" | None")


def taken_before(event: WrittenEvent, known: WrittenEvent | None, until_ms: int) -> WrittenEvent:
    """An event that is taken by its rules of before too, when it became known before a moment; unless its time or id has another type now, or
    lies where another field lies."""
    if known is None or _rules(known) == _rules(event):
        return event if known is None else msgspec.structs.replace(event, former=known.former)
    gone = [name for name in (known.time, known.id) if name is not None and name not in event.fields]
    former = WrittenFormer(
        known.time, until_ms, known.id, known.future, known.extra, known.earliest,
        {name: known.fields[name] for name in gone}, {name: known.forms[name] for name in gone if name in known.forms},
    )  # fmt: skip
    made = msgspec.structs.replace(event, former=former)
    named = [name for name in (known.time, known.id) if name is not None and name in event.fields]
    try:
        read_event(made)
    except DeclarationError:
        return event
    return made if all(base_of(known.fields[name]) == base_of(event.fields[name]) for name in named) else event


def taken_until(event: WrittenEvent, former: WrittenFormer, until_ms: int) -> WrittenEvent:
    """The same event, with another moment."""
    return msgspec.structs.replace(event, former=msgspec.structs.replace(former, until=until_ms))


def _rules(event: WrittenEvent) -> tuple[object, ...]:
    """By which an event is taken or refused, beside its fields."""
    types = [base_of(event.fields[name]) for name in (event.time, event.id) if name is not None]
    return event.time, event.id, *types, event.future, event.earliest, event.extra


def on_their_way(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    """What becomes of events that are published and not yet read when the rules of an event change."""
    if not isinstance(before, WrittenEvent) or not isinstance(after, WrittenEvent) or _rules(before) == _rules(after):
        return
    if after.former is not None and after.former != before.former:
        yield "what becomes known before this is in force, or within a minute after it, is taken by the rules of before too"
    else:
        yield "events on their way may become dead letters: let ingestion read all of them before you apply this"
