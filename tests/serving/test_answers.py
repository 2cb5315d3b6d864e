"""Answers without a server: lists and texts among numbers, in Feast's format, and in the list of what can be asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tidemill import Event, FeatureView, count, distinct, first, last, last_k
from tidemill.declarations.project import Project
from tidemill.kernel.served import Served, serve
from tidemill.kernel.view import ViewKernel
from tidemill.typed_values import view_decoder
from tidemill_serving.answers import answer_body
from tidemill_serving.app import describe
from tidemill_serving.query import QueryParser

RODE = Event("rode", {"zone": str, "at": int, "fare": float | None, "driver": str}, time="at")
ZONES = FeatureView("zones", RODE, "zone", [count(), last_k("fare", 3), distinct("driver")], windows=["1h"])
PROJECT = Project("p", {"rode": RODE}, {"zones": ZONES})
KERNEL = ViewKernel(ZONES)
NOW_MS = 1_700_000_000_000


def stored(fares: list[float | None]) -> bytes:
    """The value of a zone with rides at these fares, each a second after the one before, by two drivers."""
    state, decoder = KERNEL.new_state(), view_decoder({"fare": float | None, "driver": str})
    for i, fare in enumerate(fares):
        record = {"time": NOW_MS, "known": NOW_MS, "source": [0, i], "values": {"fare": fare, "driver": "ab"[i % 2]}}
        KERNEL.apply(state, NOW_MS + 1_000 * i, None, decoder.decode(json.dumps(record).encode()).values)
    return KERNEL.encode(state)


@pytest.mark.parametrize(
    ("fares", "shown", "status"),
    [([1.0, 2.5, None, 4.0, 5.0], [2.5, 4.0, 5.0], "PRESENT"), ([7.0], [7.0], "PRESENT"), ([None], None, "NULL_VALUE")],
)
def test_a_list_is_answered_as_a_list(fares: list[float | None], shown: Any, status: str) -> None:
    """Beside numbers and an entity that nobody knows; without values it is null."""
    body = {"entities": {"zone": ["a", "b"]}, "features": ["zones:count_1h", "zones:last_3_fare", "zones:distinct_driver_1h"]}
    query = QueryParser(PROJECT).parse(json.dumps(body).encode(), NOW_MS + 60_000)
    reading = KERNEL.read(stored(fares), query.time_ms)
    served: dict[tuple[int, bytes | None], Served] = {
        (0, b"a"): serve(ZONES, reading, query.time_ms),
        (0, b"b"): serve(ZONES, None, query.time_ms),
    }
    answer = json.loads(answer_body(query, served, []))
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert columns["last_3_fare"]["values"] == [shown, None]
    assert columns["last_3_fare"]["statuses"] == [status, "NOT_FOUND"]
    assert columns["count_1h"]["values"] == [float(len(fares)), None]
    assert columns["distinct_driver_1h"]["values"] == [float(min(2, len(fares))), None]


def test_what_can_be_asked_for_says_which_are_lists() -> None:
    """By the type of each feature."""
    (view,) = describe(PROJECT)["views"]
    assert {feature["name"]: feature["type"] for feature in view["features"]} == {
        "count_1h": "float", "last_3_fare": "list", "distinct_driver_1h": "float",
    }  # fmt: skip


def test_a_text_is_answered_as_a_text() -> None:
    """A JSON string, whatever characters it has, the empty one too; null where there is none."""
    view = FeatureView("zones", RODE, "zone", [last("driver"), first("driver"), count()])
    project, kernel = Project("p", {"rode": RODE}, {"zones": view}), ViewKernel(view)
    decoder, told = view_decoder({"driver": str}), {b"a": ['é "1"', ""], b"b": ["2"], b"c": []}
    names = ["last_driver", "first_driver", "count"]
    body = {"entities": {"zone": ["a", "b", "c"]}, "features": [f"zones:{name}" for name in names]}
    query, served = QueryParser(project).parse(json.dumps(body).encode(), NOW_MS), dict[tuple[int, bytes | None], Served]()
    for zone, drivers in told.items():
        state = kernel.new_state()
        for i, driver in enumerate(drivers):
            record = {"time": NOW_MS - 9 + i, "known": NOW_MS, "source": [0, i], "values": {"driver": driver}}
            kernel.apply(state, NOW_MS - 9 + i, None, decoder.decode(json.dumps(record).encode()).values)
        served[0, zone] = serve(view, kernel.read(kernel.encode(state), NOW_MS) if drivers else None, NOW_MS)
    answer = json.loads(answer_body(query, served, []))
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    assert columns["last_driver"]["values"] == ["", "2", None]
    assert columns["first_driver"]["values"] == ['é "1"', "2", None]
    assert columns["last_driver"]["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"]
    (shown,) = describe(project)["views"]
    assert [feature["type"] for feature in shown["features"]] == ["str", "str", "float"]
