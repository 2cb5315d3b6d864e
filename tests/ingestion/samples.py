"""What the tests of ingestion share: the project, good events, and one call that routes one of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from tidemill.declarations.project import Project, load_project
from tidemill.records import DeadLetterRecord
from tidemill.routing.envelopes import Headers
from tidemill.routing.router import Routed, Router

AIRLINE = Path(__file__).parent / "airline"
NOW_MS = 1_700_000_000_000
NOW_TEXT = "2023-11-14T22:13:20Z"


def airline(name: str = "airline") -> Project:
    """The tests' project under a name of its own."""
    before = os.environ.get("AIRLINE")
    os.environ["AIRLINE"] = name
    try:
        return load_project(AIRLINE)
    finally:
        os.environ.pop("AIRLINE") if before is None else os.environ.update(AIRLINE=before)


@cache
def project() -> Project:
    """The tests' project."""
    return airline()


def departed(**changes: Any) -> dict[str, Any]:
    """A good event that feeds four views; `changes` replace or add fields, `...` leaves one out."""
    event = {
        "flight": "UA1", "carrier": "UA", "origin": "EWR", "tailnum": "N1", "gate": 7,
        "departed_at": NOW_MS, "dep_delay": 2.5, "diverted": False, "seats": 150,
    }  # fmt: skip
    return _changed(event, changes)


def scheduled(**changes: Any) -> dict[str, Any]:
    """A good event that announces a subject for two models."""
    event = {
        "flight": "UA1", "origin": "EWR", "gate_id": 7, "published_at": NOW_TEXT, "departs_at": "2023-11-15T01:00:00+01:00",
        "distance": 1400.0, "cabin": "eco",
    }  # fmt: skip
    return _changed(event, changes)


def arrived(**changes: Any) -> dict[str, Any]:
    """A good event that gives outcomes for two models and feeds one view."""
    return _changed({"number": 3, "flight": "UA1", "arrived_at": NOW_TEXT, "arr_delay": 20.0, "fuel": 3.0}, changes)


def _changed(event: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (event | changes).items() if value is not ...}


def route(
    data: object,
    event: str = "departed",
    headers: Headers = (),
    *,
    timestamp_ms: int = NOW_MS,
    offset: int = 5,
    router: Router | None = None,
) -> Sequence[Routed]:
    """Route one record of an event's topic, partition 1; `data` is bytes as they are, or anything JSON."""
    value = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    topic = project().events[event].topic
    return (router or Router(project())).route(topic, 1, offset, timestamp_ms, b"source key", value, headers)


def refusal(routed: Sequence[Routed]) -> DeadLetterRecord:
    """The dead letter that is the only record routed."""
    assert [record[0] for record in routed] == ["airline.dead-letters"]
    return msgspec.json.decode(routed[0][3], type=DeadLetterRecord)
