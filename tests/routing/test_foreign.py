"""Values that are no plain JSON: each is named by what it is, and no JSON is taken for one of them."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import pickle
import zlib

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ingestion.samples import NOW_MS, departed, refusal, route

from tidemill import Event
from tidemill.archive.rows import event_table
from tidemill.declarations.project import Project
from tidemill.routing.envelopes import BARE
from tidemill.routing.events import EventReader
from tidemill.routing.foreign import foreign

GOOD = json.dumps(departed()).encode()
BOM = b"\xef\xbb\xbf"

VALUES: list[tuple[str, bytes, str, str]] = [
    (
        "half a JSON of a registry",
        b"\0\0\0\0\x07" + GOOD[:-9],
        "framed",
        "framed by a schema registry (schema id 7, then JSON): set TIDEMILL",
    ),
    ("Avro of a registry", b"\0\0\x01\0\x02\x0aUA100\x02", "framed", "(schema id 65538, then Avro or Protobuf)"),
    ("gzip", gzip.compress(GOOD), "encoded", "compressed with gzip"),
    ("zlib", zlib.compress(GOOD), "encoded", "compressed with zlib"),
    ("bzip2", bz2.compress(GOOD), "encoded", "compressed with bzip2"),
    ("zstd", bytes(cramjam.zstd.compress(GOOD)), "encoded", "compressed with zstd"),
    ("lz4", bytes(cramjam.lz4.compress(GOOD)), "encoded", "compressed with lz4"),
    ("UTF-16 with a mark", GOOD.decode().encode("utf-16"), "encoded", "UTF-16"),
    ("UTF-16, little end", GOOD.decode().encode("utf-16-le"), "encoded", "UTF-16"),
    ("UTF-16, big end", GOOD.decode().encode("utf-16-be"), "encoded", "UTF-16"),
    ("base64", base64.b64encode(b'{"a": 1}'), "encoded", "JSON in base64"),
    ("a pickle", pickle.dumps(departed(), 4), "encoded", "pickled"),
    ("an Avro file", b"Obj\x01\x04\x14avro.codec", "encoded", "an Avro file"),
    ("one Avro object", b"\xc3\x01" + bytes(8) + b"\x02", "encoded", "Avro with a schema's fingerprint"),
    ("MessagePack", b"\x82\xa2at\x05\xa4shop\xa5north", "encoded", "probably MessagePack"),
    ("Protobuf", b"\x0a\x0f\x0a\x04shop\x12\x07\x1a\x05north\x10\x96\x01", "encoded", "probably Protobuf"),
]


@pytest.mark.parametrize(("value", "reason", "told"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES])
def test_a_value_of_another_kind_is_named(value: bytes, reason: str, told: str) -> None:
    """As a bare value and as a whole CloudEvent."""
    for headers in ([], [("content-type", b"application/cloudevents+json")]):
        letter = refusal(route(value, headers=headers))
        assert (letter.reason, told in letter.detail) == (reason, True), letter.detail


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_no_object_is_taken_for_another_kind(value: object) -> None:
    """Whatever it has, and wherever it is cut off, as long as its beginning is there."""
    text = json.dumps({"a": value}, ensure_ascii=False).encode(errors="surrogatepass")
    assert [foreign(text[:end]) for end in range(1, len(text))] == [None] * (len(text) - 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_looked_at(value: bytes) -> None:
    """Without an error."""
    foreign(value)


def test_a_byte_order_mark_is_passed_over() -> None:
    """Before bare JSON, data of a CloudEvent, and a whole one; the archive has the same event."""
    whole = b'{"type": "departed", "data": ' + GOOD + b"}"
    structured = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert route(BOM + GOOD) == route(GOOD)
    assert route(BOM + whole, headers=structured) == route(whole, headers=structured) == route(GOOD)
    event = Event("e", {"at": int}, "at")
    reader = event_table(Project("p", {"e": event}, {}), event).reader
    for found in (reader, EventReader(event)):
        assert found.check(BOM + b'{"at": %d, "more": 1}' % NOW_MS, BARE, NOW_MS).time_ms == NOW_MS
    assert list(reader.rest) == ["more"]
