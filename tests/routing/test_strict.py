"""Values of another type that became known before their field was declared: no value, and no reason to refuse the event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill.declarations.written import WrittenEvent, read_event
from tidemill.routing.envelopes import Attributes
from tidemill.routing.events import EventReader, WholeReader
from tidemill.routing.refusals import Reason, Refused
from tidemill.routing.uses import Uses

T0 = 1_700_000_000_000
FIELDS = {"at": "int", "shop": "str", "n": "int | None", "tag": "str | None", "size": "int | None"}
EVENT = read_event(WrittenEvent("sold", FIELDS, "at", "sold", 1, strict={"n": T0, "tag": T0}))


def value(**fields: Any) -> bytes:
    """An event as it is published."""
    return json.dumps({"at": T0 - 5, "shop": "north", **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"n": "much"}, (None, None, None)), ({"n": "much", "tag": 3, "size": 4}, (None, None, 4)), ({"n": 2.5, "tag": "a"}, (None, "a", None)),
        ({"n": 3.0, "tag": []}, (3, None, None)), ({"n": 2**70, "size": 4.0}, (None, None, 4)), ({"n": 1, "tag": ""}, (1, None, None)),
    ],
)  # fmt: skip
def test_an_early_value_of_another_type_is_none(fields: dict[str, Any], read: tuple[Any, ...]) -> None:
    """All else of the event is as it was. A text that no key can be is none of a field that is a key."""
    data = EventReader(EVENT, Uses(["tag"])).check(value(**fields), Attributes(), T0 - 1).data
    assert (data.shop, data.n, data.tag, data.size) == ("north", *read)


@pytest.mark.parametrize(
    ("fields", "known_ms", "field"),
    [({"n": "much"}, T0, "n"), ({"n": "much", "size": "x"}, T0 - 1, "size"), ({"shop": 3}, T0 - 1, "shop")],
)  # fmt: skip
def test_other_values_are_refused(fields: dict[str, Any], known_ms: int, field: str) -> None:
    """From the moment on, and of other fields at any time."""
    with pytest.raises(Refused) as refused:
        EventReader(EVENT).check(value(**fields), Attributes(), known_ms)
    assert refused.value.reason == Reason.WRONG_TYPE
    assert refused.value.field in (field, "n")


def test_the_moment_is_that_of_the_event() -> None:
    """When it became known, and not when its record was written."""
    accepted = EventReader(EVENT).check(value(n="much"), Attributes(recordedtime=T0 - 1), T0 + 9)
    assert (accepted.known_ms, accepted.data.n) == (T0 - 1, None)


def test_the_archive_keeps_what_was_published() -> None:
    """Beside the columns, with all that is not declared."""
    reader = WholeReader(EVENT, Uses(), list(FIELDS))
    assert reader.read(value(n="much", more=1.50), [], T0 - 1).data.n is None
    assert {name: bytes(text) for name, text in reader.rest.items()} == {"n": b'"much"', "more": b"1.5"}
