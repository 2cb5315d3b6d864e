"""What lies on an event's topic beside the event: other types, and the envelope of a database's change log."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from tidemill.declarations.checks import Declaration
from tidemill.errors import DeclarationError

if TYPE_CHECKING:
    from tidemill.declarations.events import Event
    from tidemill.declarations.views import FeatureView

CE_TYPE = "ce_type"
"""The header that CloudEvents have for the type; so the type of a CloudEvent in structured mode counts as this header."""

DEBEZIUM_FIELDS = ("__op", "__deleted", "__ts_ms", "__source_ts_ms", "__source", "__before")
"""What an event has beside the row of a database when it is a change that Debezium captured, named as by Debezium's own flattening: the
operation (c, u, d, r), whether the row was deleted, when Debezium and when the database made the change (epoch ms), where the change comes
from, and the row before it."""


@dataclass(frozen=True, eq=False)
class Type(Declaration):
    """By what the events of one declaration are known on a topic with events of several types; all others are passed over, and counted.

    `value`: the type, text or a whole number. It lies in a Kafka header (`header`), or in the JSON of the event (`field`: a key, or the keys
    that lead to it through nested objects). Exactly one of the two is given.
    """

    value: str | int
    _: KW_ONLY
    header: str | None = None
    field: str | Sequence[str] | None = None

    @property
    def place(self) -> tuple[str, ...]:
        """Where the type lies: the header, or the keys that lead to it."""
        if self.header is not None:
            return ("header", plain_header(self.header))
        return ("field", *self.keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that lead to it; none if it is a header."""
        return () if self.field is None else (self.field,) if isinstance(self.field, str) else (*self.field,)

    def headers(self) -> list[tuple[str, bytes]]:
        """What a publisher adds to a record so that its type is known."""
        return [] if self.header is None else [(self.header, str(self.value).encode())]

    def __str__(self) -> str:
        """As it is declared."""
        where = f"header={self.header!r}" if self.header is not None else f"field={'.'.join(self.keys)!r}"
        return f"{self.value!r}, {where}"

    def flaws(self) -> Iterable[tuple[str, str]]:
        """What is wrong with it, and the mends."""
        if (
            isinstance(self.value, bool)
            or not isinstance(self.value, str | int)
            or self.value == ""
            or (isinstance(self.value, int) and not 0 <= self.value < 2**63)
        ):
            yield f"{self.value!r} is no type", 'give a text or a whole number, such as tm.Type("OrderPaid", field="type")'
        if (self.header is None) == (self.field is None):
            yield "a type lies in a header or in a field", "give one of header= and field="
        elif self.header is not None and not (isinstance(self.header, str) and self.header):
            yield f"{self.header!r} is no header", 'give its name, such as header="event-type"'
        elif self.header is not None and not isinstance(self.value, str):
            yield f"{self.value!r} in a header", "a header is text: write the type as text"
        elif self.header is None and not (
            self.keys and all(isinstance(key, str) and re.fullmatch(r'[^"\\\x00-\x1f]+', key) for key in self.keys)
        ):
            yield f"{self.field!r} is no path", 'give a key such as "type", or keys such as ["meta", "type"]'


def plain_header(name: str) -> str:
    """A header's name, however its publisher spells it: `ce_type` is also `ce-type` and `CE_Type`, and `content-type` is also `contentType`."""
    found = name.lower().replace("-", "_")
    return "content_type" if found == "contenttype" else found


def check_topic(event: Event, fail: Callable[[str, str, str], None]) -> None:
    """What an event says of its topic. `fail` raises: (where in the declaration, message, mend)."""
    for message, mend in () if event.type is None else event.type.flaws():
        fail("type", message, mend)
    if event.envelope not in (None, "debezium"):
        fail("envelope", f"{event.envelope!r} is no envelope", 'write envelope="debezium", or leave it out')
    if event.deletes not in ("pass", "keep"):
        fail("deletes", f"{event.deletes!r} says nothing about deleted rows", 'write deletes="pass" or deletes="keep"')
    if event.deletes == "keep" and event.envelope is None:
        fail("deletes", "only a change of a database's row can be a delete", 'declare envelope="debezium", or leave deletes out')
    if event.extra == "refuse" and event.envelope is not None:
        fail("extra", f"every change has fields that are not declared ({', '.join(DEBEZIUM_FIELDS)})", 'leave extra="refuse" out')
    declared = {event.keys(name) for name in event.fields}
    if event.extra == "refuse" and event.type is not None and event.type.keys and event.type.keys not in declared:
        fail("extra", f"the type lies in {'.'.join(event.type.keys)}, which is not declared", "declare it as a field too")


def check_shared(events: Iterable[Event]) -> None:
    """Whether events can share topics. Raises DeclarationError."""
    first: dict[str, Event] = {}
    types: dict[tuple[str, object], str] = {}
    for event in events:
        other = first.setdefault(event.topic, event)
        if other is not event and (event.type is None or other.type is None):
            untyped = event if event.type is None else other
            raise DeclarationError(
                f"topic {event.topic!r} has the events {other.name!r} and {event.name!r}, and nothing says which is which",
                where=untyped.declared_at,
                field="type",
                mend=f'say by what {untyped.name!r} is known, such as type=tm.Type("Paid", field="type"), or give each event a topic of its own',
            )
        for label, mine, others in (
            ("type", event.type and event.type.place, other.type and other.type.place),
            ("partitions", event.partitions, other.partitions),
            ("envelope", event.envelope, other.envelope),
            ("empty", event.empty, other.empty),
        ):
            if mine != others:
                where = (
                    "their types lie at different places" if label == "type" else f"{label} is {mine!r} of one and {others!r} of the other"
                )
                raise DeclarationError(
                    f"events {other.name!r} and {event.name!r} share topic {event.topic!r}, and {where}",
                    where=event.declared_at,
                    field=label,
                    mend="declare the same of both: it is said of the topic",
                )
        if event.type is not None:
            same = types.setdefault((event.topic, event.type.value), event.name)
            if same != event.name:
                raise DeclarationError(
                    f"{event.type.value!r} is already the type of event {same!r} on topic {event.topic!r}",
                    where=event.declared_at,
                    field="type",
                    mend="give it another type, or declare one event with the fields of both",
                )


def check_deletes(views: Iterable[FeatureView]) -> None:
    """Whether the deletes that are to erase reach their views. Raises DeclarationError."""
    for view in views:
        event, fields = view.source, () if view.erasure is None else view.erasure.fields
        if event.envelope == "debezium" and event.deletes == "pass" and ("__deleted",) in map(event.keys, fields):
            raise DeclarationError(
                f"FeatureView {view.name!r}: event {event.name!r} passes deleted rows over, so {view.erase!r} is never true",
                where=view.declared_at,
                field="erase",
                mend=f'write deletes="keep" in event {event.name!r}',
            )
