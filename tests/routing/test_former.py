"""Events that were right when they were published, and are read after their declaration became stricter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.declarations.written import WrittenEvent, WrittenForm, WrittenFormer, read_event, write_event
from tidemill.routing.envelopes import Attributes
from tidemill.routing.events import Accepted, EventReader, WholeReader
from tidemill.routing.refusals import Reason, Refused
from tidemill.routing.uses import Uses

T0 = 1_700_000_000_000
HOUR_MS = 3_600_000
FIELDS = {"ts": "int", "key": "str | None", "shop": "str", "n": "int | None"}
FORMER = WrittenFormer("at", T0, "id", "3h", "keep", "1900-01-01", {"at": "int", "id": "str"})
EVENT = read_event(WrittenEvent("sold", FIELDS, "ts", "sold", 1, "key", "1h", "refuse", former=FORMER))


def read(known_ms: int, reader: EventReader | None = None, **data: Any) -> Accepted:
    """An event that became known at a moment."""
    return (reader or EventReader(EVENT, Uses(["shop"]))).check(json.dumps(data).encode(), Attributes(), known_ms)


def test_an_event_of_before() -> None:
    """Time and id are those that it has, and a field that it has not is null; what today's rules take is taken by them."""
    early = read(T0 - 1, at=T0 - 5, id="a", shop="north", more=[1])
    assert (early.time_ms, early.id, early.data.shop, early.data.n, early.data.ts) == (T0 - 5, "a", "north", None, None)
    assert read(T0 - 1, at=T0 + 2 * HOUR_MS, id="b", shop="north").time_ms == T0 + 2 * HOUR_MS
    assert read(T0 - 1, at=-5, id="c", shop="north").time_ms == -5
    now = read(T0 - 1, ts=T0 - 9, key="k", shop="north")
    assert (now.time_ms, now.id) == (T0 - 9, "k")


@pytest.mark.parametrize(
    ("known_ms", "data", "reason"),
    [
        (T0, {"at": T0 - 5, "id": "a", "shop": "north"}, None),
        (T0 - 1, {"at": T0 - 5, "id": "a"}, None),
        (T0 - 1, {"at": T0 + 4 * HOUR_MS, "id": "a", "shop": "north"}, None),
        (T0, {"ts": T0 + 2 * HOUR_MS, "key": "k", "shop": "north"}, Reason.FUTURE_TIME),
    ],
)
def test_what_is_refused(known_ms: int, data: dict[str, Any], reason: Reason | None) -> None:
    """From the moment on, by the rules of today alone; what no rules take, at any time, and in the words of today."""
    with pytest.raises(Refused) as refused:
        read(known_ms, **data)
    with pytest.raises(Refused) as today:
        read(
            known_ms, EventReader(read_event(WrittenEvent("sold", FIELDS, "ts", "sold", 1, "key", "1h", "refuse")), Uses(["shop"])), **data
        )
    assert (refused.value.reason, str(refused.value)) == (today.value.reason, str(today.value))
    assert reason is None or refused.value.reason is reason


def test_the_archive_keeps_all_of_it() -> None:
    """What has no column any more is kept beside the columns, and an event of today is none the worse for it."""
    reader = WholeReader(EVENT, Uses(["shop"]), list(FIELDS))
    assert read(T0 - 1, reader, at=T0 - 5, id="a", shop="north", n=3, more=1.5).data.n == 3
    assert {name: bytes(text) for name, text in reader.rest.items()} == {"at": b"%d" % (T0 - 5), "id": b'"a"', "more": b"1.5"}
    assert read(T0 - 1, reader, ts=T0 - 5, shop="north").id is None
    assert reader.rest == {}


def test_it_is_the_same_as_data() -> None:
    """The rules of before are written with the event and read again, also where a field has another name in JSON, and its plain form."""
    forms = {"at": WrittenForm(path=("@at",), unit="s")}
    written = WrittenEvent("sold", FIELDS, "ts", "sold", 1, "key", former=WrittenFormer("at", T0, None, fields={"at": "int"}, forms=forms))
    event = read_event(written)
    assert write_event(event) == written
    assert EventReader(event).check(b'{"@at": 1699999999, "shop": "a"}', Attributes(), T0 - 1).time_ms == T0 - 1000
    assert event.former is not None
    assert event.plain() is event
    assert write_event(EVENT.plain()) == write_event(EVENT)


@given(
    future=st.sampled_from(["5m", "1h", "3h"]), before=st.sampled_from(["5m", "1h", "3h"]), ahead=st.integers(-10, 300),
    known=st.integers(-2, 2), more=st.booleans(), extra=st.sampled_from(["keep", "refuse"]), extra_before=st.sampled_from(["keep", "refuse"]),
)  # fmt: skip
def test_an_event_is_taken_when_one_of_its_rules_takes_it(
    future: str, before: str, ahead: int, known: int, more: bool, extra: Any, extra_before: Any
) -> None:
    """Against each declaration by itself."""
    fields, known_ms = {"at": "int"}, T0 + known
    value = json.dumps({"at": known_ms + ahead * 60_000} | ({"more": 1} if more else {})).encode()

    def takes(**rules: Any) -> bool:
        try:
            EventReader(read_event(WrittenEvent("e", fields, "at", "e", 1, **rules))).check(value, Attributes(), known_ms)
        except Refused:
            return False
        return True

    former = WrittenFormer("at", T0, future=before, extra=extra_before)
    by_either = takes(future=future, extra=extra) or (known < 0 and takes(future=before, extra=extra_before))
    assert takes(future=future, extra=extra, former=former) is by_either
