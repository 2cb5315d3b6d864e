"""Parsing and answering /predict, without a server."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.demo_state import NOW_MS

from tidemill.errors import BadRequest, NotFound
from tidemill.timestamps import EARLIEST_MS, parse_time_ms, rfc3339
from tidemill_inference.messages import Instance, PredictionAnswer, answer_body, new_id, parse_predict

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)
FIELDS = st.sampled_from(["entities", "instances", "id", "subject", "time", "features", "x"])
NEARLY = st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON, max_size=4)), max_size=5)


@given(st.binary() | (JSON | NEARLY).map(lambda value: json.dumps(value).encode()))
@example(b'{"entities": ' + b"[" * 5000)
@example(b'{"entities": {}, "time": 1' + b"0" * 400 + b"}")
def test_any_body_is_a_request_or_a_bad_request(body: bytes) -> None:
    """Nothing else than BadRequest ever comes out, for the whole or in the place of an instance."""
    try:
        request = parse_predict(body, NOW_MS)
    except BadRequest:
        return
    for item in request.instances:
        assert isinstance(item, Instance | BadRequest)
        if isinstance(item, Instance):
            assert 0 < len(item.id) <= 200


def test_defaults_and_given_values() -> None:
    """Time is now and the id is new unless given; a numeric subject is text."""
    (item,) = parse_predict(b'{"entities": {"a": 1}}', NOW_MS).instances
    assert isinstance(item, Instance)
    assert (item.subject, item.time_ms, item.given) == (None, NOW_MS, {"a": 1})
    (item,) = parse_predict(b'{"entities": {}, "id": "x", "subject": 7, "time": "1971-01-01T00:00:01+00:00"}', NOW_MS).instances
    assert item == Instance("x", "7", 31_536_001_000, {}, own_id=True, own_time=True)


def test_ids_differ_and_sort_by_time() -> None:
    """Ids of one millisecond differ, and those of a later one sort behind."""
    ids = {new_id(NOW_MS) for _ in range(1000)}
    assert len(ids) == 1000
    assert max(ids) < new_id(NOW_MS + 1)
    assert {len(name) for name in ids} == {32}


def test_an_answer_has_errors_in_their_places_and_no_nan() -> None:
    """NaN is null in JSON; an error in a batch has the common shape; alone it is raised."""
    from tidemill_inference.messages import FeatureShown, PredictRequest

    good = PredictionAnswer("p", "m", "v", 5, "value", 1.5, {"f": FeatureShown(float("nan"), "NULL_VALUE", None)})
    bad = NotFound("zone")
    shown = json.loads(answer_body(PredictRequest([], batch=True, features=True), [good, bad]))["predictions"]
    assert shown[0]["features"] == {"f": {"value": None, "status": "NULL_VALUE", "age_seconds": None}}
    assert shown[1] == {"error": "unknown name 'zone'", "mend": ""}
    with pytest.raises(NotFound):
        answer_body(PredictRequest([], batch=False, features=True), [bad])


@given(st.integers(EARLIEST_MS, 253_402_300_799_999))
def test_moments_are_read_as_they_are_written(time_ms: int) -> None:
    """RFC 3339 there and back, with milliseconds only where there are some."""
    text = rfc3339(time_ms)
    assert parse_time_ms(text) == parse_time_ms(time_ms) == time_ms
    assert ("." in text) == bool(time_ms % 1000)


@pytest.mark.parametrize("wrong", [-1, 253_402_300_800_000, "", "now", "2024-01-01", "2024-01-01T00:00:00", "1969-12-31T23:59:59Z", "12"])
def test_what_is_no_moment_is_refused(wrong: Any) -> None:
    """Out of range, without an offset, or no time at all."""
    with pytest.raises(ValueError, match=r"is not a moment|before 1971|outside the years"):
        parse_time_ms(wrong)


def test_extreme_event_times_are_clamped_when_written() -> None:
    """A time that no calendar holds does not fail an answer."""
    assert [rfc3339(-(2**62)), rfc3339(2**62)] == ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"]
