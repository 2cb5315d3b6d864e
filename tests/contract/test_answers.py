"""What the services answer, made by their own code, against the schemas that clients rely on."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.payloads import NOW_MS, PROJECT, SHOPS, validator

from tidemill.errors import BadRequest, Rebuilding, StoreUnavailable, TidemillError, UnknownFeature, UnknownModel, UnknownView
from tidemill.kernel.served import Served, serve, withheld
from tidemill.kernel.view import ViewKernel
from tidemill.runtime.http import error_answer
from tidemill.typed_values import view_decoder
from tidemill_inference.messages import FeatureShown, PredictionAnswer, answer_body, parse_predict
from tidemill_ingestion.http_api import EventResult, EventsAnswer
from tidemill_serving import answers
from tidemill_serving.query import QueryParser, UnknownFeatureService

ERRORS = [
    BadRequest("wrong", mend="mend"),
    UnknownModel("m", ["n"]),
    UnknownView("v", []),
    UnknownFeature("f"),
    UnknownFeatureService("s", ["t"]),
    StoreUnavailable("away"),
    Rebuilding(["v", "w"]),
    TidemillError("odd"),
    ValueError("not ours"),
]


def valid(name: str, body: bytes) -> Any:
    """Asserts that a body fits a payload, and gives it parsed."""
    parsed = msgspec.json.decode(body)
    validator(name).validate(parsed)
    return parsed


def served_shops(value: bytes | None, time_ms: int) -> Served:
    """What serving makes of a stored value."""
    return serve(SHOPS, None if value is None else ViewKernel(SHOPS).read(value, time_ms), time_ms)


def stored(time_ms: int) -> bytes:
    """A shop with one event."""
    kernel = ViewKernel(SHOPS)
    state = kernel.new_state()
    values = msgspec.json.encode({"time": 0, "known": 0, "source": [0, 0], "values": {"amount": 12.5}})
    kernel.apply(state, time_ms, None, view_decoder({"amount": float}).decode(values).values)
    return kernel.encode(state)


@given(st.integers(0, 4_000_000), st.booleans())
def test_a_feature_answer_fits_its_schema(age_ms: int, full_names: bool) -> None:
    """Present, missing and unknown entities, whole seconds and milliseconds, short names and long ones."""
    body = {"features": ["shops:count_1h", "shops:mean_amount_1h"], "entities": {"shop": ["north", "south", None], "more": [1, 2, 3]}}
    query = QueryParser(PROJECT).parse(msgspec.json.encode({**body, "full_feature_names": full_names}), NOW_MS)
    known = {key: served_shops(stored(NOW_MS - age_ms) if key == b"north" else None, NOW_MS) for key in (b"north", b"south", None)}
    answer = valid("get_online_features_response", answers.answer_body(query, {(0, key): item for key, item in known.items()}, []))
    assert "rebuilding" not in answer["metadata"]
    assert len(answer["results"]) == len(answer["metadata"]["feature_names"])
    assert {len(column["values"]) for column in answer["results"]} == {3}
    assert answer["results"][1]["statuses"][1:] == ["NOT_FOUND", "NOT_FOUND"]


def test_an_answer_while_a_view_is_rebuilt_fits_its_schema() -> None:
    """Its values are null and INVALID, and the view is named."""
    body = {"features": ["shops:count_1h"], "entities": {"shop": ["north"]}}
    query = QueryParser(PROJECT).parse(msgspec.json.encode(body), NOW_MS)
    answer = valid("get_online_features_response", answers.answer_body(query, {(0, b"north"): withheld(SHOPS)}, ["shops"]))
    assert answer["results"][1] == {"values": [None], "statuses": ["INVALID"], "event_timestamps": ["1970-01-01T00:00:00Z"]}
    assert answer["metadata"]["rebuilding"] == ["shops"]


@pytest.mark.parametrize("output", ["probability", "value"])
@pytest.mark.parametrize("features", [True, False])
def test_a_prediction_answer_fits_its_schema(output: str, features: bool) -> None:
    """One or several, with their inputs or without, an error in the place of a bad instance, NaN as null."""
    shown = {
        "a": FeatureShown(1.5, "PRESENT", 12.5),
        "b": FeatureShown(math.nan, "NOT_FOUND", None),
        "c": FeatureShown("debit", "PRESENT", None),
        "d": FeatureShown(None, "NULL_VALUE", -0.5),
    }
    prediction = PredictionAnswer("id", "m", "1", NOW_MS, output, 0.25, shown if features else None)
    one = parse_predict(msgspec.json.encode({"entities": {}, "features": features}), NOW_MS)
    answer = valid("predict_response", answer_body(one, [prediction]))
    assert answer[output] == 0.25
    assert ("features" in answer) == features
    two = parse_predict(msgspec.json.encode({"instances": [{"entities": {}}, {}], "features": features}), NOW_MS)
    broken = two.instances[1]
    assert isinstance(broken, TidemillError)
    assert len(valid("predict_response", answer_body(two, [prediction, broken]))["predictions"]) == 2


def test_an_answer_to_events_fits_its_schema() -> None:
    """An accepted event has a position and an id, a refused one a reason."""
    results = [
        EventResult(0, ("orders", 3, 41), "order-77"),
        EventResult(1, reason="missing_field", field="amount", detail="amount is missing"),
        EventResult(2, reason="not_json", detail="no JSON"),
    ]
    answer = valid("events_response", msgspec.json.encode(EventsAnswer(1, 2, results)))
    assert [sorted(result) for result in answer["results"]] == [
        ["id", "index", "position"],
        ["detail", "field", "index", "reason"],
        ["detail", "index", "reason"],
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_fits_its_schema(error: Exception) -> None:
    """Every error has a cause and a mend, for Feast's clients in their words too, and none shows what is not ours."""
    for status, body in (error_answer(error), answers.feast_error(error)):
        shown = valid("error", body)
        assert status >= 400
        assert shown["error"]
        assert "not ours" not in shown["error"]
