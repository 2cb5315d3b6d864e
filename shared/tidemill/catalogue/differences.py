"""What differs between two declarations as data, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tidemill.declarations.written import WrittenInput


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
