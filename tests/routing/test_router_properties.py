"""Whatever comes, routing never raises, and agrees with a naive oracle that knows JSON and the rules, but none of the code."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ingestion.samples import NOW_MS, arrived, departed, project, route, scheduled

from tidemill.limits import MESSAGE_BYTES
from tidemill.records import DeadLetterRecord, OutcomeRecord, ViewRecord
from tidemill.routing.refusals import Reason
from tidemill.timestamps import EARLIEST_MS

SAMPLES = {"departed": departed(), "scheduled": scheduled(), "arrived": arrived()}
FIELDS = sorted({name for sample in SAMPLES.values() for name in sample})
INTS = st.integers(-(2**65), 2**65) | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, NOW_MS, NOW_MS + 3_600_001, 0, -1])
FLOATS = st.floats() | st.sampled_from([1e154, 1e155, 1e308, -0.0, 5e-324, 15.0])
TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "",
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20",
        "2023-11-14T23:13:20.001Z",
        "1969-12-31T23:59:59.999Z",
        "é" * 512,
        "é" * 513,
        "x" * 1025,
    ]
)
SCALARS = st.none() | st.booleans() | INTS | FLOATS | TEXTS
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | TEXTS, inner, max_size=4)
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_recordedtime", "content-type", "other"]),
        st.none() | st.binary(max_size=8) | TEXTS.map(str.encode) | st.sampled_from([b"departed", b"application/cloudevents+json"]),
    ),
    max_size=4,
)


def as_json(value: object) -> bytes:
    """JSON as lenient writers make it: NaN and Infinity included; a lone surrogate is written as an escape."""
    return json.dumps(value).encode()


def check_records(routed: Any) -> str:
    """Every record is well formed, of its topic's kind, and lies in its key's partition; returns "dead" or "routed"."""
    for topic, partition, key, value in routed:
        if topic == "airline.dead-letters":
            letter = msgspec.json.decode(value, type=DeadLetterRecord)
            assert len(routed) == 1
            assert letter.reason in set(Reason)
            assert len(letter.detail) <= 500
            return "dead"
        assert 0 < len(key) <= 1024
        assert len(value) < MESSAGE_BYTES + 2000
        if topic.startswith("airline.view."):
            view = project().views[topic.split(".")[2]]
            msgspec.json.decode(value, type=ViewRecord)
            assert partition == zlib.crc32(key) % view.partitions
        else:
            msgspec.json.decode(value, type=OutcomeRecord)
            assert partition == zlib.crc32(key) % 4
    return "routed"


@pytest.mark.parametrize("event", SAMPLES)
@settings(max_examples=40)
@given(value=st.binary(max_size=200), headers=HEADERS, timestamp=INTS)
def test_any_bytes(event: str, value: bytes, headers: Any, timestamp: int) -> None:
    """Bytes that mean nothing become a dead letter; no bytes are passed over."""
    routed = route(value, event, headers, timestamp_ms=timestamp)
    assert check_records(routed) == "dead" if value else routed == []


@pytest.mark.parametrize("event", SAMPLES)
@settings(max_examples=60)
@given(value=JSON, headers=HEADERS, timestamp=st.just(NOW_MS) | INTS)
def test_any_json(event: str, value: object, headers: Any, timestamp: int) -> None:
    """Any JSON, with any headers, at any time, is routed or a dead letter."""
    check_records(route(as_json(value), event, headers, timestamp_ms=timestamp))


@pytest.mark.parametrize("event", SAMPLES)
@given(data=st.data())
@settings(max_examples=100)
def test_changed_event(event: str, data: st.DataObject) -> None:
    """A good event with some fields changed, dropped or added is routed exactly when the oracle accepts it, into the oracle's records."""
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(SAMPLES[event])) | st.just("extra"), SCALARS | st.just(...), max_size=2))
    value = {name: content for name, content in (SAMPLES[event] | changes).items() if content is not ...}
    routed = route(as_json(value), event)
    expected = oracle(event, value)
    if expected is None:
        assert check_records(routed) == "dead"
    else:
        check_records(routed)
        assert [(topic, key, json.loads(content)) for topic, _, key, content in routed] == expected


@settings(max_examples=60)
@given(cut=st.integers(0, 200), flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3))
def test_damaged_event(cut: int, flips: list[tuple[int, int]]) -> None:
    """An event with bytes changed or its end cut off is routed or a dead letter."""
    damaged = bytearray(as_json(SAMPLES["departed"])[: cut or None])
    for place, byte in flips:
        damaged[place % len(damaged)] = byte
    check_records(route(bytes(damaged)))


def oracle(event: str, value: dict[str, Any]) -> list[tuple[str, bytes, dict[str, Any]]] | None:
    """Topic, key and content of the records an event should become, None when it should be refused."""
    declared = project().events[event]
    if any(_kind(value[name]) == "none of them" for name in set(value) - set(declared.fields)):
        return None
    for name, kind in declared.fields.items():
        allowed = _allowed(str(kind))
        if name not in value and "null" not in allowed:
            return None
        if name in value and _kind(value[name]) not in allowed:
            return None
    full = {name: _as_declared(value.get(name), str(kind)) for name, kind in declared.fields.items()}
    if not all(_fits(name, content) for name, content in full.items()):
        return None
    return {"departed": _departed, "scheduled": _scheduled, "arrived": _arrived}[event](full)


def _allowed(kind: str) -> set[str]:
    words = {"int": {"int", "whole"}, "float": {"int", "float", "whole", "long"}, "bool": {"bool"}, "str": {"str"}, "None": {"null"}}
    return set().union(*(kinds for word, kinds in words.items() if word in kind))


def _kind(content: Any) -> str:
    if content is None:
        return "null"
    if isinstance(content, int) and not isinstance(content, bool):
        return "int" if -(2**63) <= content < 2**63 else "long"
    if isinstance(content, float) and not math.isfinite(content):
        return "none of them"
    if isinstance(content, str) and not _encodable(content):
        return "none of them"
    if isinstance(content, float) and content.is_integer() and abs(content) < 2**53:
        return "whole"
    return type(content).__name__


def _as_declared(content: Any, kind: str) -> Any:
    if "int" in kind and _kind(content) == "whole":
        return int(content)
    return float(content) if "float" in kind and _kind(content) in ("int", "long") else content


def _encodable(text: str) -> bool:
    try:
        return bool(text.encode()) or not text
    except UnicodeEncodeError:
        return False


KEYS = {"flight", "carrier", "origin", "tailnum"}
TIMES = {
    "2023-11-14T22:13:20Z": NOW_MS, "2023-11-14T23:13:20.001Z": NOW_MS + 3_600_001, "2023-11-15T01:00:00+01:00": NOW_MS + 6_400_000,
}  # fmt: skip


def _fits(name: str, content: Any) -> bool:
    """Keys have 1 to 1024 bytes; times are known ones of the samples, within their bounds."""
    if name in KEYS:
        return content is None or bool(0 < len(content.encode()) <= 1024)
    if name == "departed_at":
        return bool(EARLIEST_MS <= content <= NOW_MS + 3_600_000)
    if name in ("published_at", "arrived_at"):
        return TIMES.get(content, math.inf) <= NOW_MS
    return name != "departs_at" or content in TIMES


def _departed(e: dict[str, Any]) -> list[tuple[str, bytes, dict[str, Any]]]:
    common = {"time": e["departed_at"], "known": NOW_MS, "source": [1, 5], "id": e["flight"]}
    delay = {} if e["dep_delay"] is None else {"dep_delay": e["dep_delay"]}
    folds = [("origins", e["origin"], delay), ("carriers", e["carrier"], delay), ("planes", e["tailnum"], {})]
    folds.append(("gates", str(e["gate"]), {"diverted": e["diverted"], "seats": e["seats"]}))
    return [
        (f"airline.view.{project().views[view].log}", key.encode(), {**common, "values": values})
        for view, key, values in folds
        if key is not None
    ]


def _scheduled(_: dict[str, Any]) -> list[tuple[str, bytes, dict[str, Any]]]:
    return []


def _arrived(e: dict[str, Any]) -> list[tuple[str, bytes, dict[str, Any]]] | None:
    key, time = e["flight"].encode(), TIMES[e["arrived_at"]]
    values = {} if e["arr_delay"] is None else {"arr_delay": e["arr_delay"]}
    record = {"time": time, "known": NOW_MS, "source": [1, 5], "values": values, "id": str(e["number"])}
    burnt = float(e["fuel"]) * float(e["fuel"])
    if not math.isfinite(burnt):
        return None
    common = {"subject": e["flight"], "time": time, "known": NOW_MS, "source": ["airline.in.arrived", 1, 5], "id": str(e["number"])}
    outcomes = [] if e["arr_delay"] is None else [{"model": "late", "value": float(e["arr_delay"] > 15), **common}]
    outcomes.append({"model": "burn", "value": burnt, **common})
    return [("airline.view.landings.p4", key, record), *[("airline.outcomes", key, outcome) for outcome in outcomes]]
