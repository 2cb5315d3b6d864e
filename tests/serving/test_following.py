"""Feature serving follows the catalogue: versions of a view by name, and a swap under load."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.beside import beside
from tests.demo_state import NOW_MS, Store, demo, trip

from tidemill import FeatureView, count, max
from tidemill.catalogue.definitions import Definitions, ViewVersion
from tidemill.declarations.written import write_event, write_view
from tidemill.errors import BadRequest, UnknownView
from tidemill.runtime.http import HttpServer
from tidemill.runtime.settings import HttpSettings, KafkaSettings, ProjectSettings, RedisSettings
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.following import in_force
from tidemill_serving.app import build
from tidemill_serving.query import QueryParser
from tidemill_serving.settings import ServingSettings

TRIPS = demo().events["trips"]
EVENTS = tuple(write_event(event) for event in demo().events.values())
ZONES = FeatureView("zones", TRIPS, "zone", [count(), max("fare")], windows=["1h"])
ONE = Definitions(1, 5, EVENTS, tuple(ViewVersion(write_view(view), 1, {}) for view in demo().views.values()), {"zones": 1, "drivers": 1})
TWO = Definitions(2, 6, EVENTS, (*ONE.views, ViewVersion(write_view(ZONES), 2, {}, 2)), ONE.in_force)
THREE = msgspec.structs.replace(TWO, number=3, in_force={"zones": 2, "drivers": 1})


def columns(definitions: Definitions, *features: str, full: bool = False) -> list[tuple[str, str]]:
    """The columns of an answer, each with the log that it is read from."""
    parser = QueryParser(in_force(definitions, demo()).project)
    body = {"entities": {"zone": ["north"]}, "features": list(features), "full_feature_names": full}
    plan = parser.parse(httpx.Request("POST", "http://x", json=body).content, NOW_MS).plan
    return [(column.name, str(plan.views[column.view].log)) for column in plan.columns]


def test_names_of_versions() -> None:
    """The plain name and @latest mean what is in force; any version has its own name, the one in force too."""
    assert columns(TWO, "zones@v2:max_fare_1h", "zones@latest:count_1h") == [("max_fare_1h", "zones.v2.p4"), ("count_1h", "zones.p4")]
    assert columns(THREE, "zones:max_fare_1h", "zones@v1:tippy_1h") == [("max_fare_1h", "zones.v2.p4"), ("tippy_1h", "zones.p4")]
    assert columns(THREE, "zones@v2:count_1h", "zones:count_1h", "zones@v1:count_1h", full=True) == [
        ("zones@v2__count_1h", "zones.v2.p4"), ("zones__count_1h", "zones.v2.p4"), ("zones@v1__count_1h", "zones.p4"),
    ]  # fmt: skip
    with pytest.raises(BadRequest, match="two columns"):
        columns(THREE, "zones@v2:count_1h", "zones@v1:count_1h")
    with pytest.raises(UnknownView, match="zones@v3"):
        columns(THREE, "zones@v3:count_1h")
    with pytest.raises(UnknownView, match="zones@v2"):
        columns(ONE, "zones@v2:count_1h")


@pytest.mark.integration
async def test_a_view_is_swapped_under_load(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request fails, and each is answered by one version; a restart finds the catalogue, whatever the file says."""
    monkeypatch.setattr("tidemill_serving.app.REDIS_TIMEOUT_SECONDS", 20.0)  # a busy machine is no Redis that is away
    text = (Path(__file__).parents[1] / "demo_project" / "project.py").read_text()
    (tmp_path / "project.py").write_text(text.replace('PROJECT = "demo"', f'PROJECT = "{topic_prefix}"'))
    http, settings = HttpSettings(port=0), KafkaSettings(bootstrap_servers=kafka)
    store = Store(redis_url, dataclasses.replace(in_force(THREE, demo()).project, name=topic_prefix))
    store.apply([trip(NOW_MS, "north", fare=8.0, tip=3.0)])
    body = {"features": ["zones:count_1h"], "entities": {"zone": ["north"]}, "as_of": NOW_MS}
    answers: list[Any] = []
    for numbers in ([ONE, TWO, THREE], []):
        own = ServingSettings(project=ProjectSettings(project=str(tmp_path)), http=http, kafka=settings, redis=RedisSettings(url=redis_url))
        service = build(own)
        server = HttpServer(service.app, http)
        async with beside(service.work()), server, httpx.AsyncClient(base_url=server.url, timeout=180, trust_env=False) as client:
            assert (await client.post("/get-online-features", json=body)).status_code in (200, 503)
            async with asyncio.timeout(180):
                while (await client.get("/health/ready")).status_code != httpx.codes.OK:
                    await asyncio.sleep(0.02)
            for definitions in numbers:
                await append_definitions(settings, topic_prefix, definitions)
                for _ in range(100):
                    answers.append(await client.post("/get-online-features", json=body))
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(180):
                while (await client.post("/get-online-features", json=body | {"features": ["zones:max_fare_1h"]})).status_code != 200:
                    await asyncio.sleep(0.1)
            assert {view["name"] for view in (await client.get("/features")).json()["views"]} == {"zones", "zones@v1", "drivers"}
    assert {answer.status_code for answer in answers} == {200}
    assert {str(answer.json()["results"][1]["values"]) for answer in answers} == {"[1.0]"}
