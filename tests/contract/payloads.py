"""Schemas and examples as they lie in `schemas/`, and the code that reads each payload."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec

from tidemill import Entity, Event, FeatureView, Model, Outcome, Request, count, last, mean, records
from tidemill.catalogue.definitions import Definitions
from tidemill.declarations.project import Project
from tidemill.errors import TidemillError
from tidemill.kernel.fences import Fence
from tidemill.models.artifact import Manifest
from tidemill.retrainings import RetrainingRecord
from tidemill.routing.events import EventReader
from tidemill.training.imported.contract import decode_contract
from tidemill_inference.messages import parse_predict
from tidemill_serving.query import QueryParser

SCHEMAS = Path(__file__).parents[2] / "schemas"
NOW_MS = 1_700_000_100_000
NAMES = sorted(path.name.removesuffix(".v1.schema.json") for path in SCHEMAS.glob("*.schema.json"))
TEXT_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, TidemillError)

_ELSEWHERE: dict[str, type[records.Record]] = {"catalogue": Definitions, "retraining": RetrainingRecord}
RECORDS: dict[str, type[records.Record]] = _ELSEWHERE | {
    re.sub(
        "(?<=[a-z])(?=[A-Z])", "_", kind.__name__.removesuffix("Record") if kind is not records.ViewRecord else "ViewRecord"
    ).lower(): kind
    for kind in records.Record.__subclasses__()
    if kind.__module__ == records.__name__ and kind is not records.StampEntry
}
"""Each message by the name of its schema. A stamp's entry is a part of a prediction, not a message."""

PLACED = Event("orders.placed", {"at": int, "id": str, "shop": str, "amount": float, "till": int, "card": str | None}, time="at", id="id")
ASKED = Event(
    "orders.asked", {"at": int, "id": str, "shop": str, "till_id": int, "amount": float, "card": str | None}, time="at"
)  # fmt: skip
SHOPS = FeatureView("shops", PLACED, "shop", [count(), mean("amount")], windows=["1h"])
TILLS = FeatureView("tills", PLACED, Entity("till_id", field="till"), [last("amount")])
LATE = Model(
    "late_payment", ASKED, "at", "id", [SHOPS, TILLS, Request("amount"), Request("card", str)], Outcome(PLACED, "amount > 5", "id"), list
)  # fmt: skip
PROJECT = Project(
    "shop", {"orders.placed": PLACED, "orders.asked": ASKED}, {"shops": SHOPS, "tills": TILLS}, {"late_payment": LATE}
)  # fmt: skip
EXAMPLE_EVENT = Event("orders.placed", {"at": int, "id": str, "shop": str, "amount": float}, time="at", id="id")


def read_event(data: bytes) -> object:
    """An event in one JSON object, as ingestion judges it."""
    return EventReader(EXAMPLE_EVENT).read(data, [("content-type", b"application/cloudevents+json")], NOW_MS)


def read_predict(data: bytes) -> object:
    """A prediction request as inference reads it; an instance that cannot be used counts as one."""
    request = parse_predict(data, NOW_MS)
    for instance in request.instances:
        if isinstance(instance, TidemillError):
            raise instance
    return request


READERS: dict[str, Callable[[bytes], object]] = {
    **{name: records.decoder(kind).decode for name, kind in RECORDS.items()},
    "fence": Fence.decode,
    "manifest": msgspec.json.Decoder(Manifest).decode,
    "contract": decode_contract,
    "event": read_event,
    "predict_request": read_predict,
    "get_online_features_request": lambda data: QueryParser(PROJECT).parse(data, NOW_MS),
}
"""What reads each payload that tidemill itself reads; all raise one of TEXT_REFUSED."""


@cache
def schema(name: str) -> dict[str, Any]:
    """A payload's schema."""
    loaded: dict[str, Any] = msgspec.json.decode((SCHEMAS / f"{name}.v1.schema.json").read_bytes())
    return loaded


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """A validator of a payload."""
    return jsonschema.Draft202012Validator(schema(name))


def examples(kind: str) -> list[tuple[str, Path]]:
    """All examples of a kind ("valid" or "invalid") with their payloads."""
    return [(name, path) for name in NAMES for path in sorted((SCHEMAS / "examples" / f"{name}.v1").glob(f"{kind}-*.json"))]


def label(value: object) -> str:
    """A short name of a test's parameter."""
    return value.stem if isinstance(value, Path) else str(value)


def reads(name: str, data: bytes) -> bool:
    """Whether the code that reads a payload accepts it."""
    try:
        READERS[name](data)
    except TEXT_REFUSED:
        return False
    return True
