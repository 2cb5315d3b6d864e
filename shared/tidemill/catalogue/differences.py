"""What differs between two declarations as data, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import msgspec

from tidemill.declarations.written import WrittenEvent, WrittenInput


def differences(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    """One line for each field that differs; of a mapping or a list, one for each entry."""
    for name in before.__struct_fields__:
        if name in ("strict", "former"):  # they follow from the rest
            continue
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _entries(name, old, new)
        elif isinstance(old, tuple) and isinstance(new, tuple):
            yield from _entries(name, *(dict.fromkeys(chain.from_iterable(map(_each, items))) for items in (old, new)))
        elif old != new:
            yield from _changed(name, old, new)
    yield from _on_their_way(before, after)


def _entries(name: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for entry in [*old, *(entry for entry in new if entry not in old)]:
        if entry not in new:
            yield f"{name}: without {entry}"
        elif entry not in old:
            yield f"{name}: with {entry}" + ("" if new[entry] is None else f" ({new[entry]})")
        elif old[entry] != new[entry]:
            yield f"{name}: {entry}: {old[entry]} -> {new[entry]}"


def _changed(name: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct):
        yield from (f"{name}.{found}" for found in differences(old, new))
    else:
        yield f"{name}: {old} -> {new}"


def _each(item: object) -> list[str]:
    return item.each() if isinstance(item, WrittenInput) else [str(item)]


def rules_of(event: WrittenEvent) -> tuple[object, ...]:
    """By which an event is taken or refused, beside its fields."""
    types = [event.fields[name].removesuffix(" | None") for name in (event.time, event.id) if name is not None]
    return event.time, event.id, *types, event.future, event.earliest, event.extra


def _on_their_way(before: msgspec.Struct, after: msgspec.Struct) -> Iterator[str]:
    """What becomes of events that are published and not yet read when the rules of an event change."""
    if not isinstance(before, WrittenEvent) or not isinstance(after, WrittenEvent) or rules_of(before) == rules_of(after):
        return
    if after.former is not None and after.former != before.former:
        yield "what becomes known before this is in force, or within a minute after it, is taken by the rules of before too"
    else:
        yield "events on their way may become dead letters: let ingestion read all of them before you apply this"
