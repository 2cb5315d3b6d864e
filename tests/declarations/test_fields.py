"""What may be said of a field, and which contradictions are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidemill import Event, Field
from tidemill.catalogue.plan import differences
from tidemill.declarations.written import WrittenEvent, read_event, write_event
from tidemill.errors import DeclarationError

ALL = {
    "at": Field(int, path="@timestamp", unit="us"),
    "user": Field(str | None, path=["payload", "user", "id"]),
    "amount": Field(float | None, lenient=True, default=1.5),
    "ok": Field(bool, default=False),
    "rate": Field(float, default=2),
    "n": Field(int | None, default=None),
    "plain": Field(int),
    "bare": str,
}


@pytest.mark.parametrize(
    ("fields", "field", "told"),
    [
        ({"a": Field(int, path="")}, "a", "no path"),
        ({"a": Field(int, path=[])}, "a", "no path"),
        ({"a": Field(int, path=["x", 3])}, "a", "no path"),  # type: ignore[list-item]
        ({"a": Field(int, path='say "x"')}, "a", "no path"),
        ({"a": Field(int, path=7)}, "a", "no path"),  # type: ignore[arg-type]
        ({"a": Field(int, default="7")}, "a", "'7' is not int"),
        ({"a": Field(int, default=True)}, "a", "True is not int"),
        ({"a": Field(int, default=2**63)}, "a", "is not int"),
        ({"a": Field(int, default=None)}, "a", "None is not int"),
        ({"a": Field(float, default=float("nan"))}, "a", "nan is not float"),
        ({"a": Field(str | None, default=1)}, "a", "1 is not str | None"),
        ({"a": Field(str, unit="s")}, "a", "unit='s' of str"),
        ({"a": Field(int, unit="min")}, "a", "unit='min' of int"),  # type: ignore[arg-type]
        ({"a": Field(str, lenient=True)}, "a", "lenient=True of str"),
        ({"a": Field(int, lenient="yes")}, "a", "lenient='yes' of int"),  # type: ignore[arg-type]
        ({"a": Field(list)}, "a", "is not a type"),
        ({"a": Field(int, path="b"), "b": int}, "b", "have one path"),
        ({"a": Field(int, path="b"), "c": Field(str, path=["b", "d"])}, "c", "one path goes through the other"),
        ({"a": Field(int, path=["b", "d", "e"]), "c": Field(str, path=["b", "d"])}, "c", "one path goes through the other"),
        ({"at": Field(int, default=5)}, "at", "the time of an event has no default"),
        ({"key": Field(str, default="x")}, "key", "the id of an event has no default"),
    ],
)  # fmt: skip
def test_contradictions(fields: dict[str, Any], field: str, told: str) -> None:
    """Each is a mistake of the declaration, which names the field."""
    with pytest.raises(DeclarationError, match=told.replace("|", r"\|")) as error:
        Event("e", {"at": int, "key": str, **fields}, "at", id="key")
    assert error.value.field == f"fields[{field!r}]"


def test_the_types_are_those_of_the_fields() -> None:
    """Who reads an event sees types alone; a field that is plain after all is no form."""
    event = Event("e", ALL, "at")
    assert event.fields == {
        "at": int, "user": str | None, "amount": float | None, "ok": bool, "rate": float, "n": int | None, "plain": int, "bare": str
    }  # fmt: skip
    assert set(event.forms) == {"at", "user", "amount", "ok", "rate", "n"}
    assert [event.published(name) for name in ("at", "user", "amount", "plain")] == ["@timestamp", "payload.user.id", "amount", "plain"]
    plain = event.plain()
    assert (plain.fields, set(plain.forms), plain.declared_at) == (event.fields, {"amount", "ok", "rate", "n"}, event.declared_at)


def test_forms_come_back() -> None:
    """Through JSON, with every argument."""
    event = Event("e", ALL, "at")
    found = read_event(msgspec.json.decode(msgspec.json.encode(write_event(event)), type=WrittenEvent))
    assert write_event(found) == write_event(event)
    for name, form in event.forms.items():
        other = found.forms[name]
        assert (form.type, form.keys, form.has_default, form.lenient, form.unit) == (
            other.type, other.keys, other.has_default, other.lenient, other.unit
        )  # fmt: skip
        assert not form.has_default or form.default == other.default


def test_a_changed_form_is_told() -> None:
    """The plan says it as a change of the event."""
    before = write_event(Event("e", {"at": Field(int, unit="s"), "a": int}, "at"))
    after = write_event(Event("e", {"at": Field(int, unit="ms"), "a": Field(int, path=["x", "y"], default=0, lenient=True)}, "at"))
    assert list(differences(before, after)) == [
        "forms: at: unit='s' -> unit='ms'",
        "forms: with a (path=['x', 'y'], default=0, lenient=True)",
    ]
