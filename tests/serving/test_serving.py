"""Feature serving over HTTP, in Feast's wire format, on a real Valkey."""

import asyncio
import dataclasses
import json
import os
import signal
from typing import Any

import httpx
import msgspec
import pytest
from tests.demo_state import HOUR_MS, NOW_MS, Store, demo, trip
from tests.frozen import freeze
from tests.serving.conftest import serving

from tidemill import FeatureView, count, last
from tidemill.declarations.project import Project
from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.local.stack import Stack
from tidemill.online.keys import fence_key, state_key

pytestmark = pytest.mark.integration
PATH = "/get-online-features"


def columns(answer: httpx.Response) -> dict[str, dict[str, list[Any]]]:
    """The columns of an answer by name."""
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert list(shown) == ["results", "metadata"]
    return dict(zip(shown["metadata"]["feature_names"], shown["results"], strict=True))


async def test_the_answer_is_feasts_column_by_column(http: httpx.AsyncClient, store: Store) -> None:
    """Join keys first, then the features in the order asked for, one entry per row, in exactly Feast's form."""
    store.apply([trip(NOW_MS, "north", fare=8.0, tip=3.0), trip(NOW_MS - 1500, "north", fare=4.0), trip(NOW_MS - 1500, "south", driver=2)])
    body = {
        "features": ["zones:mean_fare_1h", "zones:last_tip", "drivers:count"],
        "entities": {"zone": ["north", "south", "nowhere"], "driver_id": [1, 2, 3], "ignored": [0, 0, 0]},
        "as_of": NOW_MS,
        "include_feature_view_version_metadata": False,
    }
    answer = await http.post(PATH, json=body)
    zero, now, before = "1970-01-01T00:00:00Z", "2023-11-14T22:13:20Z", "2023-11-14T22:13:18.500Z"
    times = [now, before, zero]
    assert answer.json() == {
        "results": [
            {"values": ["north", "south", "nowhere"], "statuses": ["PRESENT"] * 3, "event_timestamps": [zero] * 3},
            {"values": [1, 2, 3], "statuses": ["PRESENT"] * 3, "event_timestamps": [zero] * 3},
            {"values": [6.0, 10.0, None], "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"], "event_timestamps": times},
            {"values": [3.0, None, None], "statuses": ["PRESENT", "NULL_VALUE", "NOT_FOUND"], "event_timestamps": times},
            {"values": [2.0, 1.0, None], "statuses": ["PRESENT", "PRESENT", "NOT_FOUND"], "event_timestamps": times},
        ],
        "metadata": {"feature_names": ["zone", "driver_id", "mean_fare_1h", "last_tip", "count"]},
    }
    assert answer.headers["content-type"] == "application/json"


async def test_a_text_is_a_json_string(redis_url: str) -> None:
    """As it was stored, beside a zone that has none in the window and one that nobody knows."""
    view = FeatureView("zones", demo().events["trips"], "zone", [last("id", windows=["1h"]), count(windows=["lifetime"])])
    project = Project("texts", {"trips": view.source}, {"zones": view})
    stored = [
        trip(NOW_MS, "north") | {"id": 'é "2"'},
        trip(NOW_MS - 1, "north") | {"id": "1"},
        trip(NOW_MS - 2 * HOUR_MS, "south") | {"id": "0"},
    ]
    Store(redis_url, project).apply(stored)
    async with serving(project, redis_url) as client:
        body = {"features": ["zones:last_id_1h"], "entities": {"zone": ["north", "south", "nowhere"]}, "as_of": NOW_MS}
        shown = columns(await client.post(PATH, json=body))["last_id_1h"]
        assert (shown["values"], shown["statuses"]) == (['é "2"', None, None], ["PRESENT", "NULL_VALUE", "NOT_FOUND"])
        (described,) = (await client.get("/features")).json()["views"]
        assert [feature["type"] for feature in described["features"]] == ["str", "float"]


async def test_a_feature_service_is_a_models_features(http: httpx.AsyncClient, store: Store) -> None:
    """A model's name asks for the features of its inputs; full names carry the view, join keys do not; it wins over `features`."""
    store.apply([trip(NOW_MS, "north")])
    body = {"feature_service": "big_tip", "features": ["x"], "entities": {"zone": ["north"], "driver_id": [1]}, "full_feature_names": True}
    names = [name for name in demo().models["big_tip"].input_names if "__" in name]
    assert list(columns(await http.post(PATH, json=body))) == ["zone", "driver_id", *names]


async def test_windows_are_merged_at_as_of(http: httpx.AsyncClient, store: Store) -> None:
    """`as_of` moves the windows, also as RFC 3339; beyond the ttl values expire; before what is kept they are INVALID; default is now."""
    store.apply([trip(NOW_MS, "north"), trip(NOW_MS - 5 * HOUR_MS, "north")])
    body = {"features": ["zones:count_1h", "zones:count_1d", "zones:age"], "entities": {"zone": ["north"]}}
    for as_of, expected in (
        (NOW_MS, [(1.0, "PRESENT"), (2.0, "PRESENT"), (0.0, "PRESENT")]),
        ("2023-11-15T00:13:20+00:00", [(0.0, "PRESENT"), (2.0, "PRESENT"), (7200.0, "PRESENT")]),
        (NOW_MS + 49 * HOUR_MS, [(None, "OUTSIDE_MAX_AGE")] * 3),
        (NOW_MS - 30 * HOUR_MS, [(None, "INVALID")] * 3),
        (None, [(None, "OUTSIDE_MAX_AGE")] * 3),
    ):
        found = columns(await http.post(PATH, json=body | {"as_of": as_of}))
        assert [(found[name]["values"][0], found[name]["statuses"][0]) for name in ("count_1h", "count_1d", "age")] == expected, as_of


@pytest.mark.usefixtures("store")
async def test_no_content_type_is_needed(http: httpx.AsyncClient) -> None:
    """Feast's own examples send none; any other is as good."""
    content = json.dumps({"features": ["drivers:count"], "entities": {"driver_id": [None, "7", 7]}})
    for headers in ({}, {"content-type": "text/plain"}):
        found = columns(await http.post(PATH, content=content, headers=headers))
        assert found["count"]["statuses"] == ["NOT_FOUND"] * 3
        assert found["driver_id"]["values"] == [None, "7", 7]


BAD = [
    (b"", 400, "empty", "BadRequest"),
    (b"[1]", 400, "object", "BadRequest"),
    (b'{"features": ["zones:age"]}', 400, "entities", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {}}', 400, "entities.zone is missing", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": []}}', 400, "entities.zone is empty", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": "a"}}', 400, "entities.zone is not a list", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": ["a", 1.5]}}', 400, "entities.zone[1]", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": ["a"], "x": [1, 2]}}', 400, "entities.x has 2 values", "BadRequest"),
    (b'{"features": [], "entities": {"zone": ["a"]}}', 400, "features", "BadRequest"),
    (b'{"features": ["age"], "entities": {"zone": ["a"]}}', 400, "view:feature", "BadRequest"),
    (b'{"features": ["zones:nope"], "entities": {"zone": ["a"]}}', 404, "zones:nope", "UnknownFeature"),
    (b'{"features": ["nope:age"], "entities": {"zone": ["a"]}}', 404, "nope", "FeatureViewNotFoundException"),
    (b'{"features": ["zones@v2:age"], "entities": {"zone": ["a"]}}', 404, "zones@v2", "FeatureViewNotFoundException"),
    (b'{"feature_service": "nope", "entities": {"zone": ["a"]}}', 404, "nope", "FeatureServiceNotFoundException"),
    (b'{"features": ["zones:age", "zones:age"], "entities": {"zone": ["a"]}}', 400, "two columns", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": ["a"]}, "as_of": "yesterday"}', 400, "as_of", "BadRequest"),
    (b'{"features": ["zones:age"], "entities": {"zone": [' + b"1," * 5_000 + b"1]}}", 400, "5001 rows", "BadRequest"),
    (b" " * 2_000_000, 413, "limit", "BodyTooLarge"),
]


async def test_bad_requests_name_the_field(http: httpx.AsyncClient) -> None:
    """Where Feast says 500 the answer is 4xx with cause and mend, and with the three keys Feast's clients read."""
    for content, status, named, kind in BAD:
        answer = await http.post(PATH, content=content)
        shown = answer.json()
        assert (answer.status_code, shown["class"]) == (status, kind), content[:100]
        assert named in shown["message"] + shown["mend"]
        assert shown["message"] == shown["error"]
        assert shown["module"] == ("feast.errors" if kind.endswith("Exception") else "tidemill.errors")


async def test_a_large_request_is_answered(http: httpx.AsyncClient, store: Store) -> None:
    """Thousands of rows, many of them the same, come back in order."""
    store.apply([trip(NOW_MS, f"z{i}", fare=float(i)) for i in range(100)])
    zones = [f"z{i % 150}" for i in range(5_000)]
    found = columns(await http.post(PATH, json={"features": ["zones:mean_fare_1d"], "entities": {"zone": zones}, "as_of": NOW_MS}))
    assert found["mean_fare_1d"]["values"] == [float(i % 150) if i % 150 < 100 else None for i in range(5_000)]


async def test_state_without_a_fence_or_under_another_definition_is_not_served(http: httpx.AsyncClient, store: Store) -> None:
    """A value nobody vouches for is withheld; one of another definition is 503 with the mend; a damaged one is 500, and no other answer."""
    store.apply([trip(NOW_MS, "north")])
    body = {"features": ["zones:age"], "entities": {"zone": ["north"]}}
    fence = fence_key("demo", demo().views["zones"].log, partition_of(b"north", 4))
    whole = store.get(fence)
    store.client.delete(fence)
    assert columns(await http.post(PATH, json=body))["age"]["statuses"] == ["INVALID"]
    store.client.set(fence, json.dumps(json.loads(whole) | {"definition": "old"}))
    answer = await http.post(PATH, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "definition old" in answer.json()["error"]
    store.client.set(fence, b"{")
    assert (await http.post(PATH, json=body)).status_code == 500
    store.client.set(fence, whole)
    state = state_key("demo", demo().views["zones"].log, partition_of(b"north", 4), b"north")
    store.client.setrange(state, 30, b"\xff\xff")
    answer = await http.post(PATH, json=body)
    assert (answer.status_code, answer.json()["class"]) == (500, "CorruptState")


async def test_a_view_that_is_being_rebuilt_is_not_served(http: httpx.AsyncClient, store: Store) -> None:
    """Below `until`, or without a fence, its values are null and INVALID and it is named; other views, and null entities, are as ever."""
    store.apply([trip(NOW_MS, "north")])
    elsewhere = next(f"z{i}" for i in range(99) if partition_of(b"z%d" % i, 4) != partition_of(b"north", 4))
    body = {
        "features": ["zones:count_1h", "drivers:count"],
        "entities": {"zone": ["north", elsewhere, None], "driver_id": [1, 1, 1]},
        "as_of": NOW_MS,
    }
    whole = (await http.post(PATH, json=body)).json()
    assert "rebuilding" not in whole["metadata"]
    fence = fence_key("demo", demo().views["zones"].log, partition_of(b"north", 4))
    stored = Fence.decode(store.get(fence))
    for until, rebuilding in ((stored.next + 1, True), (stored.next, False)):
        store.client.set(fence, msgspec.structs.replace(stored, until=until).encode())
        answer = await http.post(PATH, json=body)
        found = columns(answer)
        if not rebuilding:
            assert answer.json() == whole
            continue
        assert answer.json()["metadata"]["rebuilding"] == ["zones"]
        assert (found["count_1h"]["values"][0], found["count_1h"]["statuses"]) == (None, ["INVALID", "NOT_FOUND", "NOT_FOUND"])
        assert found["count_1h"]["event_timestamps"][0] == "1970-01-01T00:00:00Z"
        assert found["count"]["values"] == [1.0] * 3
    store.client.flushall()
    answer = await http.post(PATH, json=body)
    assert answer.json()["metadata"]["rebuilding"] == ["drivers", "zones"]
    assert columns(answer)["count"]["statuses"] == ["INVALID"] * 3


async def test_features_are_listed(http: httpx.AsyncClient) -> None:
    """GET /features shows views with features, types and descriptions, and models; the OpenAPI document has the hot route."""
    shown = (await http.get("/features")).json()
    assert [view["name"] for view in shown["views"]] == ["zones", "drivers"]
    assert shown["views"][0]["description"] == "Trips by zone"
    assert {"name": "mean_fare_1h", "type": "float", "aggregate": "mean", "column": "fare", "window_ms": HOUR_MS} in shown["views"][0][
        "features"
    ]
    assert shown["feature_services"][1]["features"] == ["zones:mean_fare_1d"]
    assert PATH in (await http.get("/openapi.json")).json()["paths"]
    assert (await http.get("/docs")).status_code == 200
    assert (await http.get(PATH)).status_code == 405


async def test_no_reader_sees_half_a_batch(http: httpx.AsyncClient, store: Store) -> None:
    """Each batch gives two entities of one partition one event more; under constant writing every answer has both counts equal."""
    pair = ["z0", next(f"z{i}" for i in range(1, 100) if _partition(f"z{i}") == _partition("z0"))]
    body = {"features": ["zones:count_1d"], "entities": {"zone": pair}, "as_of": NOW_MS}
    stop = False

    def write() -> int:
        batches = 0
        while not stop:
            store.apply([trip(NOW_MS, zone) for zone in pair])
            batches += 1
        return batches

    writer = asyncio.create_task(asyncio.to_thread(write))
    seen = set()
    try:
        for _ in range(100):
            counts = columns(await http.post(PATH, json=body))["count_1d"]["values"]
            assert counts[0] == counts[1]
            seen.add(counts[0])
    finally:
        stop = True
        await writer
    assert len(seen) > 5


def _partition(zone: str) -> int:
    return partition_of(zone.encode(), demo().views["zones"].partitions)


async def test_redis_away_is_503_until_it_is_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without Redis requests get 503 with Retry-After at once and readiness says why; when it is back all goes on by itself."""
    with Stack(tmp_path_factory.mktemp("valkey"), services=(), servers=("valkey",)) as stack:
        store = Store(stack.redis_url)
        store.apply([trip(NOW_MS, "north")])
        body = {"features": ["zones:count_1d"], "entities": {"zone": ["north"]}, "as_of": NOW_MS}
        async with serving(demo(), stack.redis_url) as http:
            assert columns(await http.post(PATH, json=body))["count_1d"]["values"] == [1.0]
            await asyncio.to_thread(stack.halt, "valkey")
            answer = await _until(http, body, 503)
            assert answer.headers["retry-after"] == "1"
            assert "Redis" in answer.json()["error"]
            await _ready(http, 503)
            await asyncio.to_thread(stack.resume, "valkey")
            answer = await _until(http, body, 200)
            assert columns(answer)["count_1d"]["values"] == [1.0]
            await _ready(http, 200)


async def test_a_redis_that_says_nothing_is_noticed_without_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It takes connections and never answers: readiness says so and for how long, before any client had to wait; then all is well again."""
    with Stack(tmp_path_factory.mktemp("stalled"), services=(), servers=("valkey",)) as stack:
        async with serving(demo(), stack.redis_url) as http:
            freeze(stack.pid("valkey"))
            try:
                async with asyncio.timeout(180):
                    while (answer := await http.get("/health/ready")).status_code == httpx.codes.OK or not _lasted(answer):
                        await asyncio.sleep(0.05)
                assert "Redis" in answer.json()["checks"]["redis"]["reason"]
            finally:
                os.kill(stack.pid("valkey"), signal.SIGCONT)
            await _ready(http, 200)


async def _ready(http: httpx.AsyncClient, status: int) -> None:
    async with asyncio.timeout(180):
        while (await http.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.05)


def _lasted(answer: httpx.Response) -> bool:
    return float(answer.json()["checks"]["redis"]["for_seconds"]) > 0


async def _until(http: httpx.AsyncClient, body: Any, status: int) -> httpx.Response:
    async with asyncio.timeout(180):
        while (answer := await http.post(PATH, json=body)).status_code != status:
            await asyncio.sleep(0.02)
    return answer


async def test_the_views_of_another_project_are_apart(redis_url: str, store: Store) -> None:
    """Two projects on one Redis do not see each other's entities."""
    store.apply([trip(NOW_MS, "north")])
    other = dataclasses.replace(demo(), name="other")
    Store(redis_url, other)
    async with serving(other, redis_url) as http:
        found = columns(await http.post(PATH, json={"features": ["zones:age"], "entities": {"zone": ["north"]}}))
    assert found["age"]["statuses"] == ["NOT_FOUND"]
