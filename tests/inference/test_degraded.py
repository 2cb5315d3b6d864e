"""Inputs that cannot be known are told with every answer, or the model refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.demo_state import HOUR_MS, NOW_MS, demo, trained, trip
from tests.inference.conftest import ENTITIES, Service

from tidemill import Model
from tidemill.declarations.project import Project
from tidemill.declarations.written import read_model, write_model
from tidemill.errors import DeclarationError, MissingInputs
from tidemill.testing import World


def answered(world: World, at_ms: int = NOW_MS, **changes: Any) -> tuple[dict[str, str], list[str]]:
    """What a prediction says of its inputs."""
    found = world.predict("big_tip", {**ENTITIES, **changes}, at=at_ms)
    return found.degraded, found.ignored


@pytest.fixture
def world() -> World:
    """Some trips, and a model that was trained on other ones."""
    made = World(demo())
    for minutes in range(3):
        made.publish("trips", trip(NOW_MS - minutes * 60_000, "north", 9.5, 1.0, 7, str(minutes)))
    made.deploy(trained(demo().models["big_tip"]))
    return made


def refusing() -> Project:
    """The project, with a model that refuses."""
    project = demo()
    model = dataclasses.replace(project.models["big_tip"], on_missing="refuse")
    return dataclasses.replace(project, models=project.models | {"big_tip": model})


def test_all_inputs_are_known(world: World) -> None:
    """Nothing is said; a null that the client gives is its own word, and a mean over no events is known."""
    assert answered(world) == ({}, [])
    assert answered(world, payment=None, distance=None) == ({}, [])
    assert answered(world, NOW_MS + 5 * HOUR_MS) == ({}, [])


def test_inputs_that_cannot_be_known(world: World) -> None:
    """Of each the reason: never seen, expired, before anything is known, and a category that was not there in training."""
    unseen, _ = answered(world, zone="nowhere")
    assert set(unseen.values()) == {"NOT_FOUND"}
    assert all(name.startswith("zones__") for name in unseen)
    expired, _ = answered(world, NOW_MS + 49 * HOUR_MS)
    assert "OUTSIDE_MAX_AGE" in expired.values()
    early, _ = answered(world, NOW_MS - 90 * 24 * HOUR_MS)
    assert "INVALID" in early.values()
    assert answered(world, payment="seashells") == ({"payment": "UNKNOWN_CATEGORY"}, [])


def test_values_that_the_model_does_not_take(world: World) -> None:
    """They are told, in the order of the request."""
    assert answered(world, zoen="north", tip=3.0) == ({}, ["zoen", "tip"])


def test_a_model_refuses() -> None:
    """A request of which an input cannot be known has no answer, and the refusal names all of them; others are answered."""
    world = World(refusing())
    world.deploy(trained(refusing().models["big_tip"]))
    with pytest.raises(MissingInputs, match=r"zones__.*NOT_FOUND.*payment .UNKNOWN_CATEGORY") as told:
        world.predict("big_tip", {**ENTITIES, "payment": "seashells"}, at=NOW_MS)
    assert told.value.http_status == 422
    assert told.value.degraded["payment"] == "UNKNOWN_CATEGORY"


def test_it_is_declared() -> None:
    """It outlives the Python file, and another word is refused."""
    project = refusing()
    model = project.models["big_tip"]
    assert read_model(write_model(model), project.events, project.views).on_missing == "refuse"
    assert read_model(write_model(demo().models["big_tip"]), project.events, project.views).on_missing == "predict"
    with pytest.raises(DeclarationError, match="on_missing"):
        Model("m", model.on, model.at, model.subject, model.inputs, model.outcome, model.pipeline, on_missing="shrug")  # type: ignore[arg-type]


@pytest.mark.integration
async def test_over_http(service: Service) -> None:
    """With features shown or not, and byte for byte the same when the request is repeated."""
    entities = ENTITIES | {"zone": "nowhere", "zoen": "north"}
    for features in (True, False):
        ask = {"entities": entities, "time": NOW_MS, "id": f"d{features}", "features": features}
        first = await service.predict(ask)
        assert set(first.json()["degraded"].values()) == {"NOT_FOUND"}
        assert first.json()["ignored"] == ["zoen"]
        assert (await service.predict(ask)).content == first.content
    whole = await service.predict({"entities": ENTITIES, "time": NOW_MS, "features": False})
    assert "degraded" not in whole.json()
    assert "ignored" not in whole.json()
