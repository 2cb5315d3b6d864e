"""The record that is written for a message that was refused: what it tells, and how small it stays."""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill import Event, FeatureView, count, mean
from tidemill.kernel.fold import RefusedEntry, entry_decoder
from tidemill.limits import CUT_BYTES, KEY_BYTES
from tidemill.records import DeadLetterRecord, ViewRecord, decoder, encode
from tidemill.streams.dead_letters import dead_letter, letter_of_refused, letter_record
from tidemill.timestamps import LAST_MS

EVENT = Event("sold", {"at": int, "shop": str, "price": float}, time="at", topic="shop-floor")
VIEW = FeatureView("shops", EVENT, "shop", [count(), mean("price")], windows=["1h"], partitions=3)
NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
GOOD = encode(ViewRecord(NOW_MS, NOW_MS + 5, (2, 77), {"price": 1.0}))


class Raw(NamedTuple):
    """A consumed record."""

    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = NOW_MS + 9


def refused(raw: Raw, newest_ms: int = 0) -> DeadLetterRecord:
    """The letter of a record at offset `raw.offset` of partition 1, refused as late if it can be decoded."""
    entry = entry_decoder(VIEW)(raw.offset, raw.key, raw.value)
    reason = RefusedEntry("late" if entry.record else "poison", entry, newest_ms)
    return letter_of_refused(VIEW, "p.view.shops.p3", 1, reason, HOUR_MS, raw)


def test_the_letter_of_a_late_record() -> None:
    """It tells how late the event is, how far the view reaches, where the record lies, and where the event lay."""
    letter = refused(Raw(8, b"a", GOOD), newest_ms=NOW_MS + HOUR_MS + 1)
    assert (letter.reason, letter.view, letter.key, letter.known) == ("late", "shops", "a", NOW_MS + 5)
    assert letter.detail == f"its time {NOW_MS} lies 3600001 ms before the entity's newest event, view 'shops' reaches back 1h"
    assert (letter.source, letter.origin) == (("p.view.shops.p3", 1, 8), ("shop-floor", 2, 77))
    assert (base64.b64decode(letter.value), letter.size) == (GOOD, len(GOOD))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (None, GOOD, "the record has no key"),
        (b"\xff", GOOD, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
        (b"a", None, "DecodeError: Input data was truncated"),
        (b"a", b"noise", "DecodeError: JSON is malformed"),
        (b"a", GOOD.replace(b"1.0", b"true"), "ValidationError: Expected `float`, got `bool` - at `$.values.price`"),
    ],
)
def test_the_letter_of_a_record_that_cannot_be_decoded(key: bytes | None, value: bytes | None, says: str) -> None:
    """It tells what the decoder says; the record's own timestamp is all that is known of its time, and the event has no place."""
    letter = refused(Raw(8, key, value))
    assert (letter.reason, letter.view, letter.known, letter.origin) == ("poison", "shops", NOW_MS + 9, None)
    assert letter.detail.startswith(says)
    assert letter.source == ("p.view.shops.p3", 1, 8)
    assert letter.key == (None if key is None else key.decode(errors="replace"))
    assert (base64.b64decode(letter.value), letter.size) == (value or b"", len(value or b""))


def test_a_record_without_fault_has_no_reason_to_be_poison() -> None:
    """A caller that takes a good record for poison is told, not believed."""
    raw, entry = Raw(8, b"a", GOOD), entry_decoder(VIEW)(8, b"a", b"noise")
    with pytest.raises(AssertionError, match="can be decoded"):
        letter_of_refused(VIEW, "p.view.shops.p3", 1, RefusedEntry("poison", entry), HOUR_MS, raw)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_letter_is_cut_at_its_limits(more: int) -> None:
    """Text, key and value are kept whole up to their limits and not beyond; the size is that of the whole value."""
    value, key = b"v" * (CUT_BYTES + more), b"k" * (KEY_BYTES + more)
    letter = dead_letter("reason", "d" * (500 + more), ("t", 0, 0), NOW_MS, key, value)
    assert letter.detail == "d" * min(500, 500 + more)
    assert (base64.b64decode(letter.value), letter.size) == (value[:CUT_BYTES], len(value))
    assert letter.key == key[:KEY_BYTES].decode()
    assert letter_record(letter, key)[0] == key[:KEY_BYTES]


@given(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50), st.integers(-(2**62), 2**62))
def test_a_letter_is_read_as_it_was_written(key: bytes | None, value: bytes | None, known_ms: int) -> None:
    """Whatever was refused, at whatever time, its letter is a record that every reader accepts, and is JSON."""
    letter = dead_letter("reason", "detail", ("t", 0, 0), known_ms, key, value)
    written_key, written, headers = letter_record(letter, key)
    assert decoder(DeadLetterRecord).decode(written) == letter
    assert (written_key, headers) == (key, [])
    assert json.loads(written)["known"] == min(max(known_ms, 0), LAST_MS)
