"""Events and recordings of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args

from tidemill.declarations.checks import FIELD_TYPES, Declaration, base_type, check_partitions, duration_ms
from tidemill.declarations.fields import Field, fields_of
from tidemill.declarations.topics import CE_TYPE, Type, check_topic, plain_header
from tidemill.durations import parse_ms
from tidemill.errors import DeclarationError
from tidemill.names import check_name
from tidemill.timestamps import FIRST_MS, parse_time_ms

Kind = type
"""The class `type`: within Event this word is a field's name."""


@dataclass(frozen=True, eq=False)
class Event(Declaration):
    """An event that an application publishes on a topic.

    `fields`: name -> str, int, float or bool; or one of these `| None`, if the field may be null or absent; or a `Field`, if the publisher
    writes it in another way. `time`: the field with the
    event's time, a whole number of epoch milliseconds or an RFC 3339 string. `id`: the field by which a second publication of the same
    event is known; the CloudEvents header `ce_id` can take its place. `future`: how far the time may lie ahead of the moment of
    publishing; an event further ahead becomes a dead letter. `earliest`: the first day on which its times may lie; an
    event with an earlier one becomes a dead letter, since seconds that are taken for milliseconds lie in January 1970. `topic`: the topic's
    name, by default the event's name. `extra`: fields of an
    event that are not declared are kept in the archive ("keep"), or the event is refused ("refuse"). `empty`: a record without a value, such
    as the tombstone of a compacted topic, is passed over and counted ("pass"), or becomes a dead letter ("refuse"). `type`: by what its
    events are known on a topic that has others too. `envelope`: "debezium", if a record is a change of a database's row: the event is the
    row, with the fields of `DEBEZIUM_FIELDS`. `deletes`: of such changes, those that delete a row are passed over and counted ("pass"), or
    are events with the row as it was before ("keep").
    """

    name: str
    fields: Mapping[str, Any]
    time: str
    _: KW_ONLY
    id: str | None = None
    topic: str = ""
    partitions: int = 4
    future: str = "1h"
    earliest: str = "1971-01-01"
    extra: Literal["keep", "refuse"] = "keep"
    empty: Literal["pass", "refuse"] = "pass"
    type: Type | None = None
    envelope: Literal["debezium"] | None = None
    deletes: Literal["pass", "keep"] = "pass"
    description: str = ""

    earliest_ms: int = field(init=False, repr=False)
    """The first moment of `earliest`, epoch ms."""

    forms: Mapping[str, Field] = field(init=False, repr=False, default_factory=dict)
    """The fields that a publisher does not write plainly; `fields` has their types."""

    strict: Mapping[str, int] = field(init=False, repr=False, default_factory=dict)
    """Fields that were declared later than the event -> a moment, epoch ms. Of events that became known before it, a value of another type is
    no value: those that were accepted before the field was declared must not be refused by who reads them later."""

    former: Former | None = field(init=False, repr=False, default=None)
    """By which rules it was taken before they changed; None: they never did."""

    def __post_init__(self) -> None:
        check_name(self.name, self.declared_at, "name", dots=True)
        object.__setattr__(self, "topic", self.topic or self.name)
        if not re.fullmatch(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", self.topic):
            self._fail("topic", f"Kafka accepts no topic {self.topic!r}", "use letters, digits, dots, dashes and underscores")
        check_partitions(self)
        given = self.fields
        object.__setattr__(
            self, "fields", {name: kind.type if isinstance(kind, Field) else kind for name, kind in dict(self.fields).items()}
        )
        for name, kind in self.fields.items():
            check_name(name, self.declared_at, f"fields[{name!r}]")
            if base_type(kind) not in FIELD_TYPES:
                self._fail(
                    f"fields[{name!r}]",
                    f"{kind!r} is not a type of an event's field",
                    "write str, int, float or bool, or e.g. `float | None`",
                )
        object.__setattr__(self, "forms", fields_of(given, self._fail))
        for label in ("time", "id"):
            named = getattr(self, label)
            if named is not None and named not in self.fields:
                self._fail(label, f"the event has no field {named!r}", f"name one of {', '.join(self.fields)}")
            if self.has_default(named):
                self._fail(f"fields[{named!r}]", f"the {label} of an event has no default", "leave default= out")
        if not self.is_time(self.time):
            self._fail("time", f"{self.time!r} must be int (epoch ms) or str (RFC 3339), never null", "change the field's type")
        duration_ms(self, "future", self.future)
        try:
            object.__setattr__(self, "earliest_ms", parse_time_ms(f"{self.earliest}T00:00:00Z", FIRST_MS))
        except ValueError:
            self._fail("earliest", f"{self.earliest!r} is no day", 'write for example earliest="1900-01-01"')
        if self.extra not in ("keep", "refuse"):
            self._fail("extra", f"{self.extra!r} says nothing about undeclared fields", 'write extra="keep" or extra="refuse"')
        if self.empty not in ("pass", "refuse"):
            self._fail("empty", f"{self.empty!r} says nothing about records without a value", 'write empty="pass" or empty="refuse"')
        check_topic(self, self._fail)

    @property
    def future_ms(self) -> int:
        """`future` in ms."""
        return parse_ms(self.future)

    def nullable(self, name: str) -> bool:
        """Whether a field may be null."""
        return NoneType in get_args(self.fields[name])

    def is_time(self, name: str) -> bool:
        """Whether a field can hold a time: int (epoch ms) or str (RFC 3339), never null."""
        return not self.nullable(name) and self.base_type(name) in (int, str)

    def plain(self) -> Event:
        """The same event, each field under its own name and as its type: what a table of events has. Defaults stay."""
        if not self.forms:
            return self
        fields = {
            name: Field(kind, default=self.forms[name].default) if self.has_default(name) else kind for name, kind in self.fields.items()
        }
        made = replace(self, fields=fields)
        former = self.former and Former(self.former.event.plain(), self.former.until_ms)
        made.__dict__.update(declared_at=self.declared_at, strict=self.strict, former=former)
        return made

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers by which a record is known as this event."""
        said = [] if self.type is None else self.type.headers()
        return said if any(plain_header(name) == CE_TYPE for name, _ in said) else [(CE_TYPE, self.name.encode()), *said]

    def unit(self, name: str) -> str | None:
        """The unit in which a publisher counts a time, where it is declared."""
        return self.forms[name].unit if name in self.forms else None

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys that lead to a field in the JSON of an event."""
        return (self.forms[name].keys if name in self.forms else None) or (name,)

    def published(self, name: str) -> str:
        """A field as its publisher calls it."""
        return ".".join(self.keys(name))

    def value(self, name: str, data: Any) -> Any:
        """A field's value in the decoded JSON of an event; None where it has none. Raises ValueError."""
        form = self.forms.get(name)
        for key in self.keys(name):
            if not isinstance(data, Mapping) or key not in data:
                return form.default if form is not None and form.has_default else None
            data = data[key]
        return data if form is None else form.value(data)

    def has_default(self, name: str | None) -> bool:
        """Whether a field has a value when an event lacks it."""
        return name is not None and name in self.forms and self.forms[name].has_default

    def base_type(self, name: str) -> Kind:
        """A field's type without `| None`."""
        kind: Kind = base_type(self.fields[name])
        return kind

    @property
    def types(self) -> dict[str, Kind]:
        """All fields with their types, without `| None`."""
        return {name: self.base_type(name) for name in self.fields}

    def _fail(self, name: str, message: str, mend: str) -> None:
        raise DeclarationError(f"Event {self.name!r}: {message}", where=self.declared_at, field=name, mend=mend)


class Former(NamedTuple):
    """An event as it was declared before: with the former `time`, `id`, `future`, `earliest` and `extra`, and the fields of today. What became
    known before `until_ms` (epoch ms) was published by these rules, and must not be refused by later ones."""

    event: Event
    until_ms: int


@dataclass(frozen=True, eq=False)
class Recording(Declaration):
    """Recorded events that can be played again. `events(start_ms, end_ms)` yields (known_ms, event name, data) in order of known_ms.

    `known_ms` is when the event became known to the outside. `start` and `end` (ISO dates) bound the whole recording.
    """

    name: str
    events: Callable[[int, int], Iterator[tuple[int, str, dict[str, Any]]]]
    start: str
    end: str
