"""Parsing feature requests, and the answer's form, without a server."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.demo_state import NOW_MS, demo

from tidemill.errors import BadRequest, NotFound
from tidemill_serving.answers import feast_error
from tidemill_serving.query import Query, QueryParser

PARSER = QueryParser(demo())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)
REFERENCES = st.sampled_from(["zones:age", "zones:count_1h", "drivers:count", "drivers@latest:max_fare", "zones:no", "no:age", "x"])
LISTS = st.lists(st.text(max_size=3) | st.integers() | st.none(), min_size=1, max_size=3)
NEARLY = st.fixed_dictionaries(
    {"entities": st.dictionaries(st.sampled_from(["zone", "driver_id", "x"]), LISTS | JSON)},
    optional={"features": st.lists(REFERENCES) | JSON, "feature_service": st.sampled_from(["fare", "no"]), "as_of": JSON},
)


@given(st.binary() | (JSON | NEARLY).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_query_or_a_clients_mistake(body: bytes) -> None:
    """What comes out is a consistent query, or an error below 500 whose text names something."""
    try:
        query = PARSER.parse(body, NOW_MS)
    except (BadRequest, NotFound):
        return
    assert {len(keys) for keys in query.keys} == {query.rows}
    assert len(query.keys) == len(query.plan.views)


def parse(**body: Any) -> Query:
    """Parse a body."""
    return PARSER.parse(json.dumps(body).encode(), NOW_MS)


def test_columns_follow_the_request() -> None:
    """Order is kept, views are read once, join keys are named once, `@latest` is the view itself."""
    query = parse(features=["drivers:count", "zones:age", "drivers@latest:max_fare"], entities={"zone": ["a"], "driver_id": [1]})
    assert [view.name for view in query.plan.views] == ["drivers", "zones"]
    assert query.plan.join_keys == ("driver_id", "zone")
    assert [(column.name, column.view) for column in query.plan.columns] == [("count", 0), ("age", 1), ("max_fare", 0)]
    assert query.keys == [[b"1"], [b"a"]]
    assert query.time_ms == NOW_MS


def test_names_that_collide_need_their_views() -> None:
    """The same feature asked for twice is refused, under full names as well."""
    for full in (False, True):
        with pytest.raises(BadRequest, match="two columns"):
            parse(features=["zones:age", "zones:age"], entities={"zone": ["a"]}, full_feature_names=full)


def test_unknown_names_list_the_known() -> None:
    """The mend of a wrong name says which names there are."""
    for body, known in (
        ({"features": ["zones:agee"]}, "age"),
        ({"features": ["zone:age"]}, "zones"),
        ({"feature_service": "fares"}, "fare"),
    ):
        with pytest.raises(NotFound) as caught:
            parse(entities={"zone": ["a"]}, **body)
        assert known in caught.value.mend


def test_an_error_has_the_keys_of_both() -> None:
    """Ours and those that Feast's clients read."""
    status, shown = feast_error(BadRequest("cause", mend="mend"))
    both = {"error": "cause", "mend": "mend", "module": "tidemill.errors", "class": "BadRequest", "message": "cause"}
    assert (status, json.loads(shown)) == (400, both)


def test_an_error_that_is_not_ours_shows_no_details() -> None:
    """Nothing of an unexpected exception reaches a client."""
    status, body = feast_error(RuntimeError("secret"))
    assert status == 500
    assert b"secret" not in body


def test_a_moment_in_another_unit_is_refused() -> None:
    """Seconds would be January 1970, where nothing has happened yet."""
    with pytest.raises(BadRequest, match=r"as_of: 1700000000 ms is 1970-01-20: are these seconds\? give milliseconds"):
        parse(features=["zones:age"], entities={"zone": ["a"]}, as_of=1_700_000_000)
