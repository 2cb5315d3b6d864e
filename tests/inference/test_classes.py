"""A model of three classes over HTTP: the answered class, every probability, the log, repetitions, shadows, and the protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.demo_state import NOW_MS, trip
from tests.inference.conftest import ENTITIES, Service
from tests.training.test_zoo import TEXTS

from tidemill import Event, Model, Outcome
from tidemill.models.artifact import Artifact, inputs_of, save_artifact
from tidemill.models.engine import load_engine
from tidemill.models.inputs import vector_of
from tidemill.records import OtherVersion, encode
from tidemill.streams.topics import shadows_topic
from tidemill.training.dataset import TrainingSet
from tidemill.training.version import make_version

pytestmark = pytest.mark.integration
CLASSES = ["none", "small, or nearly", "large"]
ENDED = Event("ended", {"at": int, "id": str, "tipped": str}, "at")


def of_classes(model: Model) -> Model:
    """A model whose outcome is a text."""
    return dataclasses.replace(model, outcome=Outcome(ENDED, "tipped", "id", classes=CLASSES))


def trained(model: Model, created_ms: int) -> Artifact:
    """A version, trained on rows whose class mostly follows the distance."""
    draw = np.random.default_rng(created_ms)
    inputs = inputs_of(model.plan, {"payment": TEXTS})
    rows, places = draw.normal(size=(200, len(inputs))).astype(np.float32), draw.integers(0, 3, 200)
    rows[:, model.input_names.index("distance")] = places + draw.normal(0, 0.5, 200)
    rows[:, model.input_names.index("payment")] = draw.integers(0, 3, 200)
    examples = TrainingSet(rows, places.astype(np.float64), np.arange(200), [str(i) for i in range(200)], inputs, texts=tuple(CLASSES))
    return make_version(model, examples, created_ms, lambda _: None).artifact


@pytest.fixture
async def three(bare: Service) -> tuple[Service, Artifact]:
    """A service with a version of three classes."""
    bare.store.apply([trip(NOW_MS - 60_000 * i, "north", fare=10.0 + i, tip=float(i), driver=7) for i in range(20)])
    artifact = trained(of_classes(bare.project.models["big_tip"]), NOW_MS)
    await bare.deploy(artifact)
    return bare, artifact


async def test_a_prediction_has_its_class_and_all_probabilities(three: tuple[Service, Artifact]) -> None:
    """They are those of the stored file for the logged inputs, by name and in order; the log has them to the bit, and a repeated id too."""
    service, artifact = three
    body: dict[str, Any] = {"entities": ENTITIES, "id": "one", "time": NOW_MS, "features": False}
    answer = (await service.predict(body)).json()
    assert list(answer) == ["prediction_id", "model", "version", "time", "class", "probabilities"]
    assert list(answer["probabilities"]) == CLASSES
    service.store.apply([trip(NOW_MS - 1000, "north", fare=99.0, tip=9.0, driver=7)])
    assert (await service.predict(body)).json() == answer
    records = (await service.logged())["one"]
    assert len(records) == 2
    assert records[0] == records[1]
    engine = load_engine(artifact)
    expected = engine.answer(vector_of(records[0].inputs))
    assert answer["probabilities"] == records[0].probabilities == expected.probabilities
    assert answer["class"] == max(expected.probabilities, key=expected.probabilities.__getitem__)
    assert records[0].output == expected.output == max(expected.probabilities.values())


async def test_a_batch(three: tuple[Service, Artifact]) -> None:
    """Each instance has its class; beside it an error keeps its place."""
    service, _ = three
    instances = [{"entities": ENTITIES | {"distance": distance}} for distance in (0.0, 1.0, 2.0)] + [{"entities": {}}]
    found = (await service.predict({"instances": instances})).json()["predictions"]
    assert [item["class"] for item in found[:3]] == [
        max(item["probabilities"], key=item["probabilities"].__getitem__) for item in found[:3]
    ]
    assert len({item["probabilities"]["none"] for item in found[:3]}) == 3
    assert "entities.zone is missing" in found[3]["error"]


async def test_the_protocol(three: tuple[Service, Artifact]) -> None:
    """Probabilities and classes as tensors, as JSON and in binary; metadata name the columns."""
    service, artifact = three
    told = (await service.http.get("/v2/models/big_tip")).json()
    assert json.loads(told["properties"]["classes"]) == CLASSES
    columns = len(artifact.manifest.inputs)
    matrix = np.random.default_rng(4).normal(size=(5, columns)).astype(np.float32)
    tensor = {"name": told["inputs"][0]["name"], "shape": [5, columns], "datatype": "FP32", "data": matrix.astype(float).tolist()}
    plain = (await service.http.post("/v2/models/big_tip/infer", json={"inputs": [tensor]})).json()
    outputs = {item["name"]: item for item in plain["outputs"]}
    engine = load_engine(artifact)
    expected = [engine.probabilities(row) for row in matrix]
    assert (outputs["probabilities"]["datatype"], outputs["probabilities"]["shape"]) == ("FP32", [5, 3])
    assert np.array(outputs["probabilities"]["data"]).reshape(5, 3).tolist() == expected
    assert (outputs["class"]["datatype"], outputs["class"]["shape"]) == ("BYTES", [5, 1])
    assert outputs["class"]["data"] == [CLASSES[int(np.argmax(row))] for row in expected]
    answer = await service.http.post(
        "/v2/models/big_tip/infer", json={"inputs": [tensor], "outputs": [{"name": "class", "parameters": {"binary_data": True}}]}
    )
    binary, texts = answer.content[int(answer.headers["inference-header-content-length"]) :], list[str]()
    while binary:
        (length,) = struct.unpack_from("<I", binary)
        texts.append(binary[4 : 4 + length].decode())
        binary = binary[4 + length :]
    assert texts == outputs["class"]["data"]
    logged = await service.logged()
    first = plain["parameters"]["prediction_id"]
    assert [list(logged[id][0].probabilities.values()) for id in (first, *(f"{first}-{i}" for i in range(1, 5)))] == expected


async def test_a_shadow_of_classes(three: tuple[Service, Artifact]) -> None:
    """What it would have answered is logged with all its probabilities."""
    service, artifact = three
    other = trained(of_classes(service.project.models["big_tip"]), NOW_MS + 1)
    record = await service.deploy(artifact)
    folder, digest = save_artifact(service.settings.offline.root, other.manifest, other.onnx)
    beside = OtherVersion(other.manifest.version, "shadow", folder, digest)
    await service.announce(encode(msgspec.structs.replace(record, others=[beside])))
    await service.serving("big_tip", other.manifest.version)
    answer = (await service.predict({"entities": ENTITIES, "id": "seen", "time": NOW_MS})).json()
    async with asyncio.timeout(180):
        while "seen" not in (shadows := await service.logged(shadows_topic)):
            await asyncio.sleep(0.1)
    (seen,) = shadows["seen"]
    assert seen.version == other.manifest.version
    assert list(seen.probabilities) == CLASSES
    assert seen.probabilities != answer["probabilities"]
