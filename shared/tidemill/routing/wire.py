"""What the JSON of an event is decoded to: one Struct with an attribute for each declared field, however the publisher writes it.

Other names are free. Nested objects, texts and units are decoded to a Struct as they are written, from which a second one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from tidemill.declarations import Event
from tidemill.limits import EXACT, KEY_BYTES
from tidemill.routing.uses import Uses

Tree = Mapping[str, Any]
"""Keys of an object -> the tree below them, or the field that lies there."""

Decode = Callable[[bytes], Any]
_BELOW = "ø"
"""How the attribute of an object that leads to fields begins. No field has such a name."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class WrongValue(msgspec.ValidationError):
    """A value that a field cannot have. `name`: as the publisher calls it; `is_time`: whether a time was meant."""

    def __init__(self, name: str, detail: str, is_time: bool) -> None:
        super().__init__(f"{detail} - at `$.{name}`")
        self.name, self.detail, self.is_time = name, detail, is_time


def data_decoder(event: Event, uses: Uses, *, forbid_unknown: bool) -> Decode:
    """Decodes the data of an event. A key has 1 to KEY_BYTES characters, and a number that a double must hold is at most EXACT. Time and id may be absent, since attributes can give them.

    The decoder raises DECODE_ERRORS, and WrongValue.
    """
    plain = all(len(event.keys(name)) == 1 and not form.converts for name, form in event.forms.items())
    fields = [(name, *_kind_and_default(event, name, uses)) for name in event.fields]
    rename = {name: event.published(name) for name in event.fields} if plain else None
    data = msgspec.defstruct("Data", fields, rename=rename, forbid_unknown_fields=forbid_unknown, kw_only=True, gc=False)
    if plain:
        return msgspec.json.Decoder(data).decode
    tree = tree_of(event, event.fields)
    carried = msgspec.json.Decoder(_wire_type(tree, {name: field for name, *field in fields}, forbid_unknown)).decode
    takers = [(name, _taker(event, name, _attributes(tree, event.keys(name)), default)) for name, _, default in fields]

    def decode(value: bytes) -> Any:
        found = carried(value)
        return data(**{name: take(found) for name, take in takers})

    return decode


def field_type(event: Event, name: str, uses: Uses) -> Any:
    """What a field's JSON may be."""
    base = event.base_type(name)
    kind: Any = base
    if base is int:
        bounds = (-EXACT, EXACT) if name in uses.numbers else (-(2**63), 2**63 - 1)
        kind = Annotated[int, msgspec.Meta(ge=bounds[0], le=bounds[1])]
    elif base is str and (name in uses.keys or name == event.id):
        kind = Annotated[str, msgspec.Meta(min_length=1, max_length=KEY_BYTES)]
    if name in event.forms and event.forms[name].lenient:
        kind = kind | str
    return kind | None if event.nullable(name) else kind


def tree_of(event: Event, names: Collection[str]) -> dict[str, Any]:
    """Where some fields lie in the JSON of an event."""
    tree: dict[str, Any] = {}
    for name in names:
        *through, last = event.keys(name)
        node = tree
        for key in through:
            node = node.setdefault(key, {})
        node[last] = name
    return tree


def opened(text: bytes | str, tree: Tree) -> dict[str, Any]:
    """An object with the JSON text of each member; those below which the tree has fields are such objects themselves. Raises DECODE_ERRORS."""
    members: dict[str, Any] = _OBJECT.decode(text)
    for key, below in tree.items():
        if isinstance(below, dict) and bytes(members.get(key, b"")).startswith(b"{"):
            members[key] = opened(members[key], below)
    return members


def place_of(members: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any] | None:
    """The opened object that has a member of this path; None when there is none."""
    for key in keys[:-1]:
        found = members.get(key)
        if not isinstance(found, dict):
            return None
        members = found
    return members if keys[-1] in members else None


def put(members: dict[str, Any], keys: tuple[str, ...], text: Any) -> bool:
    """Adds a member at a path to an opened object; false when something else lies on the path."""
    for key in keys[:-1]:
        members = members.setdefault(key, {})
        if not isinstance(members, dict):
            return False
    members[keys[-1]] = text
    return True


def merge(members: dict[str, Any], others: Mapping[str, Any]) -> None:
    """Adds the members of another opened object."""
    for key, member in others.items():
        if isinstance(member, dict) and isinstance(members.get(key), dict):
            merge(members[key], member)
        else:
            members[key] = member


def without(members: dict[str, Any], tree: Tree, keeps: Callable[[str, bytes], bool]) -> dict[str, Any]:
    """What remains of an opened object without the fields of the tree, but for texts that it keeps; objects that became empty go too."""
    rest = {}
    for key, member in members.items():
        below = tree.get(key)
        if isinstance(below, str):
            if keeps(below, bytes(member)):
                rest[key] = member
        elif below is None or not isinstance(member, dict):
            rest[key] = member
        elif (left := without(member, below, keeps)) or not member:
            rest[key] = left
    return rest


def _kind_and_default(event: Event, name: str, uses: Uses) -> tuple[Any, Any]:
    kind = field_type(event, name, uses)
    if event.has_default(name):
        default = event.forms[name].default
        return kind, float(default) if event.base_type(name) is float and default is not None else default
    if name == event.time or (name == event.id and not event.nullable(name)):
        return kind | msgspec.UnsetType, msgspec.UNSET
    return kind, None if event.nullable(name) else msgspec.NODEFAULT


def _wire_type(tree: Tree, fields: Mapping[str, Sequence[Any]], forbid_unknown: bool) -> Any:
    """The Struct of an object as it is written. Objects that lead to fields have attributes as no field has."""
    members: list[tuple[str, Any, Any]] = []
    for place, below in enumerate(tree.values()):
        if isinstance(below, str):
            (kind, default), name = fields[below], below
        else:
            kind, name = _wire_type(below, fields, forbid_unknown), f"{_BELOW}{place}"
            may_lack = not any(field.required for field in msgspec.structs.fields(kind))
            kind, default = (kind | None, msgspec.UNSET) if may_lack else (kind, msgspec.NODEFAULT)
        members.append((name, kind, default) if default is msgspec.NODEFAULT else (name, kind | msgspec.UnsetType, msgspec.UNSET))
    rename = {name: key for (name, *_), key in zip(members, tree, strict=True)}
    return msgspec.defstruct("Wire", members, rename=rename, forbid_unknown_fields=forbid_unknown, kw_only=True, gc=False)


def _attributes(tree: Tree, keys: Sequence[str]) -> list[str]:
    """The attributes that lead to a field of `_wire_type`."""
    found = []
    for key in keys:
        below = tree[key]
        found.append(below if isinstance(below, str) else f"{_BELOW}{list(tree).index(key)}")
        tree = below
    return found


def _taker(event: Event, name: str, attributes: Sequence[str], default: Any) -> Callable[[Any], Any]:
    """A function that takes the value of a field from what was written."""
    *through, last = attributes
    form, said = event.forms.get(name), event.published(name)

    def take(found: Any) -> Any:
        for attribute in through:
            found = getattr(found, attribute)
            if found is None or found is msgspec.UNSET:
                return default
        value = getattr(found, last)
        if value is msgspec.UNSET:
            return default
        if form is None or not form.converts:
            return value
        try:
            return form.value(value)
        except ValueError as error:
            raise WrongValue(said, str(error), form.unit is not None) from None

    return take
