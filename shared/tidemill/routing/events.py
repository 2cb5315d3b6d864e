"""One event, decoded and checked: the same code for events from Kafka and from HTTP.

The declared fields become one msgspec Struct, so one pass decodes and validates a good event. Only a refused event is read again, to find
the reason. An event is used whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from tidemill.declarations import Event
from tidemill.declarations.topics import CE_TYPE
from tidemill.errors import DeclarationError
from tidemill.kernel.keys import entity_of
from tidemill.limits import EXACT, KEY_BYTES
from tidemill.records import BYTE_ORDER_MARK, DECODE_ERRORS
from tidemill.routing.envelopes import BARE, Attributes, Headers, attributes_of, given_headers
from tidemill.routing.framing import HEADERS
from tidemill.routing.opening import Frames, Opened, Opener, check_size, unframed
from tidemill.routing.refusals import PassedOver, Reason, Refused, bad_key, explain_data, meant
from tidemill.routing.uses import UNUSED, Uses
from tidemill.routing.wire import Decode, data_decoder, field_type, merge, opened, place_of, put, tree_of, without
from tidemill.timestamps import EARLIEST_MS, LAST_MS, check_moment


class Accepted(NamedTuple):
    """A good event. `data` has one attribute per declared field; times are in epoch ms."""

    data: Any
    time_ms: int
    known_ms: int
    id: str | None


_FLOAT = msgspec.json.Decoder(float)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class EventReader:
    """Reads the events of one declaration. `uses`: what the project does with its fields; `frames`: as in Opener."""

    def __init__(self, event: Event, uses: Uses = UNUSED, frames: Frames = unframed) -> None:
        for name in (*uses.keys, *((event.id,) if event.id else ())):
            if event.base_type(name) not in (str, int):
                raise DeclarationError(
                    f"Event {event.name!r}: field {name!r} is {event.base_type(name).__name__} and cannot be a key or an id",
                    where=event.declared_at,
                    field=f"fields[{name!r}]",
                    mend="declare it str or int, or name another field",
                )
        self.event = event
        self.opener = Opener(event, frames)
        self._bare = event.type is None and event.envelope is None
        self._type = None if event.type is None else event.type.value
        self._ce_type = event.name if event.type is None else self._type if event.type.place == ("header", CE_TYPE) else None
        self.published = {name: event.published(name) for name in event.fields}
        self._decode: Decode = data_decoder(event, uses, forbid_unknown=event.extra == "refuse")
        self._keeps = event.extra == "keep"
        self._strict = {name: (at_ms, msgspec.json.Decoder(field_type(event, name, uses))) for name, at_ms in event.strict.items()}
        self._tree = tree_of(event, event.fields)
        self._whole_numbers = [event.keys(name) for name, kind in event.types.items() if kind is int]
        self._text_keys = [name for name in {*uses.keys, event.id} if name is not None and event.base_type(name) is str]
        self._joined = [(names, entity_of(names)) for names in uses.joined]
        self._time, self._time_is_text, self._future_ms = event.time, event.base_type(event.time) is str, event.future_ms
        self._earliest_ms = event.earliest_ms
        self._former = self._of(event.former.event, uses) if event.former else None
        self._former_until_ms = event.former.until_ms if event.former else 0

    def _of(self, former: Event, uses: Uses) -> EventReader:
        """A reader of the event as it was declared before."""
        return EventReader(former, uses)

    def read(self, value: bytes | None, headers: Headers, published_ms: int) -> Accepted:
        """Decode a record of the event's topic. `published_ms`: its timestamp. Raises Refused, and PassedOver for one that is no such event."""
        if self._bare and value and value[0]:  # the usual record, without detours
            if not headers:
                return self.check(value, BARE, published_ms)
            given = given_headers(headers)
            attributes, structured = attributes_of(given)
            if not structured and HEADERS.isdisjoint(given):
                return self.check(value, attributes, published_ms)
        opened = self.opener.open(value, headers)
        if self._type is not None and self.opener.type_of(opened) != self._type:
            raise PassedOver("type")
        return self.check_opened(opened, published_ms)

    def check_opened(self, opened: Opened, published_ms: int) -> Accepted:
        """Decode and check the event of a record that is known to have one. Raises Refused."""
        return self.check(opened.value, opened.attributes, published_ms)

    def admit(self, value: bytes, attributes: Attributes, published_ms: int) -> Accepted:
        """Decode and check what would be the value of a record, before there is one. Raises Refused, PassedOver."""
        check_size(value)
        data, attributes, _ = self.opener.opened(value, attributes)
        if self.event.type is not None and self.event.type.keys and (found := self.opener.field_type(data)) != self._type:
            name = ".".join(self.event.type.keys)
            raise Refused(Reason.WRONG_EVENT, f"{name} is {found!r}, of {self.event.name!r} it is {self._type!r}", name)
        return self.check(data, attributes._replace(type=None), published_ms)

    def check(self, value: bytes, attributes: Attributes, published_ms: int) -> Accepted:
        """Decode and check the data of an event. Raises Refused.

        What became known while the event was declared otherwise is taken by the rules of then as well (`Event.former`).
        """
        try:
            return self._check(value, attributes, published_ms)
        except Refused:
            found = self._by_former(value, attributes, published_ms)
            if found is None:
                raise
            return found

    def _by_former(self, value: bytes, attributes: Attributes, published_ms: int) -> Accepted | None:
        if self._former is None:
            return None
        try:
            found = self._former.check(value, attributes, published_ms)
        except Refused:
            return None
        return found if found.known_ms < self._former_until_ms else None

    def _check(self, value: bytes, attributes: Attributes, published_ms: int) -> Accepted:
        check_size(value)
        if attributes.type is not None and attributes.type != self._ce_type and self._ce_type is not None:
            raise Refused(Reason.WRONG_EVENT, f"type is {attributes.type!r}, this is the topic of {self.event.name!r}", "type")
        try:
            data = self._decode(value)
            if self._keeps and not value.isascii():
                value.decode()  # the decoder has passed over undeclared fields, whatever bytes they are
        except DECODE_ERRORS as error:
            if value.startswith(BYTE_ORDER_MARK) and not value.startswith(BYTE_ORDER_MARK, len(BYTE_ORDER_MARK)):
                return self._check(value.removeprefix(BYTE_ORDER_MARK), attributes, published_ms)
            data = self._decode_again(value, error, attributes, published_ms)
        if len(value) > KEY_BYTES:
            self._check_keys(data)
        known_ms = self._known(attributes.recordedtime, published_ms)
        return Accepted(data, self._time_of(data, attributes.time, known_ms, value), known_ms, self._id_of(data, attributes.id, value))

    def _decode_again(self, value: bytes, error: Exception, attributes: Attributes, published_ms: int) -> Any:
        """The data of an event whose only mistakes are whole numbers written as 300.0, and values of another type that became known before
        their field was declared (`Event.strict`). Raises Refused for any other one."""
        if isinstance(error, msgspec.ValidationError) and ("got `float`" in str(error) or self._strict):
            try:
                value.decode()
                found = opened(value, self._tree)
                for keys in self._whole_numbers:
                    if (place := place_of(found, keys)) is not None:
                        place[keys[-1]] = _whole(place[keys[-1]])
                early = self._early(found, attributes, published_ms) if self._strict else {}
                data = self._decode(msgspec.json.encode(found))
            except DECODE_ERRORS:
                pass  # the first error says more
            else:
                self._pass_over(early)
                return data
        id_field = self.event.id and self.published[self.event.id]
        raise explain_data(value, error, self.published.values(), id_field) from None

    def _early(self, found: dict[str, Any], attributes: Attributes, published_ms: int) -> dict[str, Any]:
        """Takes out the values that their fields cannot have, and that became known before these were strict; returns them as they lay."""
        known_ms = self._known(attributes.recordedtime, published_ms)
        early: dict[str, Any] = {}
        for name, (at_ms, decoder) in self._strict.items():
            keys = self.event.keys(name)
            place = place_of(found, keys) if known_ms < at_ms else None
            if place is not None and not self._fits(name, decoder, place[keys[-1]]):
                put(early, keys, place.pop(keys[-1]))
        return early

    def _fits(self, name: str, decoder: msgspec.json.Decoder[Any], text: msgspec.Raw) -> bool:
        try:
            form, value = self.event.forms.get(name), decoder.decode(text)
            if form is not None and form.converts:
                form.value(value)
        except (ValueError, RecursionError):
            return False
        return True

    def _pass_over(self, early: dict[str, Any]) -> None:
        """Hears of the values that an accepted event loses."""

    def _check_keys(self, data: Any) -> None:
        """Checks bytes, since the decoder counts characters. `check` skips this for an event too small to hold a key that is too long."""
        for name in self._text_keys:
            size = len((getattr(data, name) or "").encode())
            if size > KEY_BYTES:
                raise bad_key(self.published[name], name == self.event.id, f"it has {size} bytes")
        for names, entity in self._joined:
            size = len((entity(data) or "").encode())
            if size > KEY_BYTES:
                raise bad_key(
                    " and ".join(self.published[name] for name in names), False, f"together, as a JSON array, they have {size} bytes"
                )

    def _known(self, recorded: str | int | None, published_ms: int) -> int:
        if recorded is None:
            return _in_range(published_ms, "timestamp", self._earliest_ms)
        given = int(recorded) if isinstance(recorded, str) and recorded.isdecimal() and len(recorded) < 20 else recorded
        known_ms = moment(given, "recordedtime", self._earliest_ms)
        if known_ms > published_ms + self._future_ms:
            raise self._ahead("recordedtime", known_ms, "the record's own timestamp", published_ms)
        return known_ms

    def _time_of(self, data: Any, attribute: str | None, known_ms: int, value: bytes) -> int:
        given, name = getattr(data, self._time), self.published[self._time]
        if given is msgspec.UNSET:
            if attribute is None:
                raise self._missing(name, "time", value)
            time_ms, name = moment(attribute, "time", self._earliest_ms), "time"
            setattr(data, self._time, attribute if self._time_is_text else time_ms)
        else:
            time_ms = moment(given, name, self._earliest_ms, self.event.unit(self._time) or "ms")
        if time_ms > known_ms + self._future_ms:
            raise self._ahead(name, time_ms, "the moment it became known", known_ms)
        return time_ms

    def _ahead(self, name: str, time_ms: int, than: str, limit_ms: int) -> Refused:
        ahead = f"{name} is {time_ms - limit_ms} ms ahead of {than} ({limit_ms})"
        return Refused(Reason.FUTURE_TIME, f"{ahead}, more than {self.event.future} (future= of the event)", name)

    def _id_of(self, data: Any, attribute: str | None, value: bytes) -> str | None:
        if attribute is not None and not 0 < len(attribute.encode()) <= KEY_BYTES:
            raise bad_key("id", True, f"it has {len(attribute.encode())} bytes")
        name = self.event.id
        if name is None:
            return attribute
        given = getattr(data, name)
        if given is msgspec.UNSET:
            if attribute is None:
                raise self._missing(self.published[name], "id", value)
            setattr(data, name, self._as_id(attribute))
            return attribute
        if given is None:
            return attribute
        return str(given)

    def _missing(self, name: str, attribute: str, value: bytes) -> Refused:
        near = meant(value, name, self.published.values())
        return Refused(Reason.MISSING_FIELD, f"{name} is missing, and there is no CloudEvents {attribute} in its place{near}", name)

    def _as_id(self, attribute: str) -> str | int:
        name = self.event.id
        assert name is not None
        if self.event.base_type(name) is str:
            return attribute
        if not (attribute.isdecimal() and len(attribute) < 19):
            raise Refused(Reason.BAD_ID, f"id is {attribute!r}, {self.published[name]} is a whole number", "id")
        return int(attribute)


class WholeReader(EventReader):
    """Reads the same events, and also gives what an event carries beyond the fields `columns`: see `rest`.

    `rest`: key -> JSON text as the publisher wrote it, or an object of such; of the event read last: fields that are not declared, declared
    ones that are not in `columns`, and what the columns do not hold of the others.
    """

    def __init__(self, event: Event, uses: Uses, columns: Collection[str], frames: Frames = unframed) -> None:
        self._columns = columns
        super().__init__(event, uses, frames)
        self.rest: dict[str, Any] = {}
        self._held = tree_of(event, [name for name in event.fields if name in columns])
        keeping = any(form.may_keep for form in event.forms.values())
        self._columns_hold_all = not keeping and event.fields.keys() <= set(columns)
        self._decode_declared = self._decode
        self._decode_bare = data_decoder(event, uses, forbid_unknown=True)
        self._decode = self._decode_whole

    def _of(self, former: Event, uses: Uses) -> WholeReader:
        return WholeReader(former, uses, self._columns)

    def _by_former(self, value: bytes, attributes: Attributes, published_ms: int) -> Accepted | None:
        found = super()._by_former(value, attributes, published_ms)
        if found is not None and isinstance(self._former, WholeReader):
            self.rest = self._former.rest
        return found

    def _decode_whole(self, value: bytes) -> Any:
        self.rest = {}
        if self._columns_hold_all:
            try:
                return self._decode_bare(value)  # an event without undeclared fields needs nothing more
            except msgspec.ValidationError:
                pass
        data = self._decode_declared(value)
        self.rest = without(opened(value, self._held), self._held, self._keeps_text)
        return data

    def _keeps_text(self, name: str, text: bytes) -> bool:
        return name in self.event.forms and self.event.forms[name].keeps(text)

    def _pass_over(self, early: dict[str, Any]) -> None:
        merge(self.rest, early)


def moment(given: str | int, name: str, earliest_ms: int = EARLIEST_MS, unit: str = "ms") -> int:
    """Epoch ms of a time: a whole number of ms, or RFC 3339 with a zone (cut to ms). `unit`: in which the publisher's number was read. Raises
    Refused, which names the field."""
    if isinstance(given, int):
        return _in_range(given, name, earliest_ms, unit)
    try:
        when = msgspec.convert(given, datetime)
    except msgspec.ValidationError:
        raise Refused(Reason.BAD_TIME, f"{name} is {given!r}; write RFC 3339, such as 2013-01-01T05:15:00Z", name) from None
    if when.tzinfo is None:
        raise Refused(Reason.BAD_TIME, f"{name} is {given!r}, without a zone: add Z or an offset such as -05:00", name)
    return _in_range((when - _EPOCH) // _MILLISECOND, name, earliest_ms)


def _whole(number: msgspec.Raw) -> msgspec.Raw:
    """A number such as 300.0 as 300; any other value as it is."""
    try:
        found = _FLOAT.decode(number)
    except DECODE_ERRORS:
        return number
    return msgspec.Raw(b"%d" % found) if found.is_integer() and abs(found) < EXACT else number


def _in_range(time_ms: int, name: str, earliest_ms: int, unit: str = "ms") -> int:
    if earliest_ms <= time_ms <= LAST_MS:
        return time_ms
    try:
        return check_moment(time_ms, earliest_ms, 'declare unit="{unit}"', unit)
    except ValueError as error:
        raise Refused(Reason.BAD_TIME, f"{name}: {error}", name) from None
