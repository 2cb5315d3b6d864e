"""Inference follows the catalogue: views change under load, and models go on with the versions that they were trained on."""

from __future__ import annotations

import asyncio
import dataclasses

import msgspec
import pytest
from tests.beside import beside
from tests.demo_state import NOW_MS, PAYMENTS, Store, saved, trained, trip
from tests.inference.conftest import ENTITIES, Service

from tidemill import FeatureView, count, last, max, mean
from tidemill.catalogue.definitions import Definitions, ViewVersion
from tidemill.declarations import Model
from tidemill.declarations.written import write_event, write_model, write_view
from tidemill.records import encode
from tidemill.streams.catalogue_log import append_definitions
from tidemill.streams.following import in_force

pytestmark = pytest.mark.integration


def first(service: Service) -> Definitions:
    """The catalogue of what the service runs, without the model `fare`."""
    project = service.project
    views = tuple(ViewVersion(write_view(view), 1, {}) for view in project.views.values())
    events = tuple(write_event(event) for event in project.events.values())
    return Definitions(1, 5, events, views, dict.fromkeys(project.views, 1), (write_model(project.models["big_tip"]),))


def changed(service: Service, before: Definitions) -> Definitions:
    """The next record: `zones` has a second version, which is handed over."""
    zones = FeatureView("zones", service.project.events["trips"], "zone", [count(), mean("fare"), max("fare"), last("id")], windows=["1h"])
    version = ViewVersion(write_view(zones), 2, {}, before.number + 1)
    return msgspec.structs.replace(before, number=before.number + 1, views=(*before.views, version))


def second_version(catalogue: Definitions, service: Service) -> FeatureView:
    """The second version of `zones`, once it is in force."""
    alone = msgspec.structs.replace(catalogue, in_force=catalogue.in_force | {"zones": 2}, models=())
    return in_force(alone, service.project).project.views["zones"]


async def test_a_model_goes_on_with_its_version_of_a_view(service: Service) -> None:
    """A view changes under load: no request fails, the model reads what it was trained on, and a new version of it reads the new view."""
    kafka, name = service.settings.kafka, service.project.name
    body = {"entities": ENTITIES, "time": NOW_MS, "features": False}
    outputs, statuses, asking = set(), set(), True

    async def ask() -> None:
        while asking:
            answer = await service.predict(body)
            statuses.add(answer.status_code)
            outputs.add(str(answer.json()["probability"]) if answer.status_code == 200 else answer.text)
            await asyncio.sleep(0)

    one = first(service)
    two = changed(service, one)
    declared, zones = service.project.models["big_tip"], second_version(two, service)
    wider = Model("big_tip", declared.on, "at", "id", [zones, *declared.requests], declared.outcome, declared.pipeline)
    three = msgspec.structs.replace(two, number=3, in_force=two.in_force | {"zones": 2}, models=(write_model(wider),))
    async with beside(ask()):
        for definitions in (one, two, three):
            await append_definitions(kafka, name, definitions)
        await asyncio.sleep(3)
        asking = False
    assert (statuses, len(outputs)) == ({200}, 1), outputs
    second = Store(service.settings.redis.url, dataclasses.replace(service.project, views={"zones": zones}))
    second.apply([trip(NOW_MS, "north", fare=77.0) | {"id": "cash"}])
    await service.deploy(trained(wider, "v2"))
    answer = await service.predict(body | {"id": "x", "features": True})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert "77" in str(shown)
    assert shown["features"]["zones__last_id"] == {"value": "cash", "status": "PRESENT", "age_seconds": 0.0}
    (logged,) = (await service.logged())["x"]
    assert logged.inputs[wider.input_names.index("zones__last_id")] == PAYMENTS.index("cash")
    assert {str(entry.view) for entry in logged.stamp} == {"zones.v2.p4"}


async def test_a_loaded_version_reads_what_is_in_force_where_that_stores_the_same(service: Service) -> None:
    """Another number of partitions is another version, which may replace the old one; another ttl counts at once."""
    one, kafka, name = first(service), service.settings.kafka, service.project.name
    zones = dataclasses.replace(service.project.views["zones"], partitions=2)
    moved = msgspec.structs.replace(
        one, number=2, views=(*one.views, ViewVersion(write_view(zones), 2, {}, 2)), in_force=one.in_force | {"zones": 2}
    )
    view = in_force(msgspec.structs.replace(moved, models=()), service.project).project.views["zones"]
    Store(service.settings.redis.url, dataclasses.replace(service.project, views={"zones": view})).apply([trip(NOW_MS, "north", fare=77.0)])
    expiring = msgspec.structs.replace(moved.views[-1], view=write_view(dataclasses.replace(zones, ttl="1m")))
    body = {"entities": ENTITIES, "time": NOW_MS + 120_000, "features": True}
    for definitions, stamped, shown in ((one, "zones.p4", "19.5"), (moved, "zones.v2.p2", "77.0")):
        await append_definitions(kafka, name, definitions)
        await _until(service, body, shown)
        answer = await service.predict(body | {"id": stamped})
        assert answer.status_code == 200, answer.text
        (logged,) = (await service.logged())[stamped]
        assert stamped in {str(entry.view) for entry in logged.stamp}
    await append_definitions(kafka, name, msgspec.structs.replace(moved, number=3, views=(*moved.views[:-1], expiring)))
    await _until(service, body, "OUTSIDE_MAX_AGE")


async def _until(service: Service, body: dict[str, object], shown: str) -> None:
    """Wait until an answer shows a text."""
    async with asyncio.timeout(180):
        while shown not in (await service.predict(body)).text:
            await asyncio.sleep(0.1)


async def test_a_model_trained_on_what_is_gone_is_refused(service: Service) -> None:
    """The reason names the view; what serves goes on."""
    await append_definitions(service.settings.kafka, service.project.name, first(service))
    await asyncio.sleep(2)
    artifact = trained(service.project.models["big_tip"], "v9", 3)
    definitions = artifact.manifest.definitions | {"zones": "0" * 16}
    bad = artifact._replace(manifest=msgspec.structs.replace(artifact.manifest, definitions=definitions))
    await service.announce(encode(saved(service.settings.offline.root, bad)))
    answer = await service.until("/v2/models/big_tip/versions/v1/ready")
    assert answer.status_code == 200
    await asyncio.sleep(2)
    assert (await service.predict({"entities": ENTITIES, "time": NOW_MS})).status_code == 200


async def test_a_new_model_is_served_without_restart(service: Service) -> None:
    """Its deployment may come before or after the catalogue has it."""
    kafka, name = service.settings.kafka, service.project.name
    one = first(service)
    await append_definitions(kafka, name, one)
    await service.until("/v2/models/fare/ready", 404)
    await service.announce(encode(saved(service.settings.offline.root, trained(service.project.models["fare"]))))
    await asyncio.sleep(1)
    await append_definitions(
        kafka, name, msgspec.structs.replace(one, number=2, models=(*one.models, write_model(service.project.models["fare"])))
    )
    await service.serving("fare", "v1")
    assert (await service.predict({"entities": ENTITIES, "time": NOW_MS}, "fare")).status_code == 200
