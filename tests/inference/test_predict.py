"""Predictions by entity, over HTTP, on real Kafka and Valkey."""

import math

import msgspec
import numpy as np
import pytest
from tests.demo_state import HOUR_MS, NOW_MS, demo, trained, trip
from tests.inference.conftest import ENTITIES, Service

from tidemill.kernel.fences import Fence
from tidemill.kernel.keys import partition_of
from tidemill.kernel.served import serve
from tidemill.kernel.view import ViewKernel
from tidemill.models.engine import load_engine
from tidemill.models.inputs import ModelInputs, vector_of
from tidemill.online.keys import fence_key

pytestmark = pytest.mark.integration


async def test_a_prediction_is_that_of_the_model_for_what_the_store_holds(service: Service) -> None:
    """The output and the logged inputs are, to the bit, what the kernel, the vector and the engine give when called by hand."""
    answer = (await service.predict({"entities": ENTITIES, "time": NOW_MS, "subject": "trip-1", "id": "p1"})).json()
    model = service.project.models["big_tip"]
    inputs = ModelInputs(model, {"payment": ["card", "cash"]})
    served = []
    for (view, _), key in zip(inputs.views, inputs.keys(ENTITIES), strict=True):
        kernel = ViewKernel(view)
        states = {
            entity: state for (name, _), found in service.store.states.items() if name == view.name for entity, state in found.items()
        }
        served.append(serve(view, kernel.read(kernel.encode(states[key or b""]), NOW_MS), NOW_MS))
    vector = vector_of(inputs.row(served, ENTITIES))
    output = load_engine(trained(model)).predict(vector)
    (record,) = (await service.logged())["p1"]
    assert answer["probability"] == record.output == output
    assert np.array_equal(vector_of(record.inputs), vector, equal_nan=True)
    assert (record.subject, record.time, record.entities, record.version) == ("trip-1", NOW_MS, ENTITIES, "v1")
    fences = {(demo().views[name].log, partition): fold.fence.next for (name, partition), fold in service.store.folds.items()}
    assert {(entry.view, entry.partition): entry.next for entry in record.stamp} == fences
    assert answer["features"]["zones__count_1h"] == {"value": 20.0, "status": "PRESENT", "age_seconds": 0.0}
    assert answer["features"]["payment"] == {"value": "cash", "status": "PRESENT", "age_seconds": None}


async def test_windows_empty_as_time_passes(service: Service) -> None:
    """The same entity hours later: the short window is empty, the long one is not, and beyond the ttl all of it has expired."""
    for hours, count, status in ((5, 0.0, "PRESENT"), (49, None, "OUTSIDE_MAX_AGE")):
        features = (await service.predict({"entities": ENTITIES, "time": NOW_MS + hours * HOUR_MS})).json()["features"]
        assert features["zones__count_1h"] == {"value": count, "status": status, "age_seconds": hours * 3600.0}
        assert features["zones__mean_fare_1h"]["value"] is None
        assert features["zones__mean_fare_1h"]["status"] == ("NULL_VALUE" if hours == 5 else "OUTSIDE_MAX_AGE")


async def test_an_unknown_entity_is_predicted_and_said_to_be_unknown(service: Service) -> None:
    """New and null entities are ordinary: their features are not found, null in JSON, NaN for the model and null in the log."""
    for zone in ("nowhere", None, "ünïcode\u0000"):
        answer = await service.predict({"entities": ENTITIES | {"zone": zone}, "time": NOW_MS, "id": f"u-{zone}"})
        assert answer.status_code == 200
        assert b"NaN" not in answer.content
        assert answer.json()["features"]["zones__age"] == {"value": None, "status": "NOT_FOUND", "age_seconds": None}
        assert answer.json()["features"]["drivers__max_fare"]["status"] == "PRESENT"
        names = [name for name, shown in answer.json()["features"].items() if shown["status"] == "NOT_FOUND"]
        assert answer.json()["degraded"] == dict.fromkeys(names, "NOT_FOUND")
        (record,) = (await service.logged())[f"u-{zone}"]
        assert record.inputs[:8] == [None] * 8
        assert record.entities["zone"] == zone
    assert [entry.view for entry in (await service.logged())["u-None"][0].stamp] == ["drivers.p4"]


async def test_a_batch_is_its_instances_one_by_one(service: Service) -> None:
    """A batch answers, in order, what single requests answer, bit for bit, with an error in the place of a bad instance. Its instances
    share entities and times."""
    service.store.apply([trip(NOW_MS - 500_000 * i, f"zone{i % 7}", fare=float(i), tip=1.5 * i, driver=i % 5) for i in range(60)])
    random = np.random.default_rng(1)
    instances = [
        {
            "entities": ENTITIES | {"zone": f"zone{i % 9}", "driver_id": i % 3, "distance": float(random.normal()) * 20},
            "time": NOW_MS + int(random.choice([0, HOUR_MS, 3 * HOUR_MS])) if i % 5 else NOW_MS + int(random.integers(0, 3 * HOUR_MS)),
            "id": f"b{i}",
        }
        for i in range(50)
    ]
    singles = [(await service.predict(instance | {"id": f"s{i}"})).json() for i, instance in enumerate(instances)]
    bad = [
        {"entities": {"zone": "north"}},
        {"entities": ENTITIES | {"distance": "far"}},
        5,
        {"entitis": {}},
        {"entities": ENTITIES, "time": "soon"},
    ]
    answer = (await service.predict({"instances": instances + bad})).json()["predictions"]
    for i, (single, batched) in enumerate(zip(singles, answer, strict=False)):
        assert batched == single | {"prediction_id": f"b{i}"}
    texts = [error["error"] for error in answer[50:]]
    for text, name in zip(texts, ("entities.driver_id", "entities.distance", "object", "entitis", "time"), strict=True):
        assert name in text
    logged = await service.logged()
    assert len(logged) == 100
    for i in range(50):
        assert msgspec.structs.replace(logged[f"s{i}"][0], id="", served=0) == msgspec.structs.replace(logged[f"b{i}"][0], id="", served=0)


async def test_while_a_view_is_rebuilt_nothing_is_predicted(service: Service) -> None:
    """503 with the view's name and Retry-After, single or in a batch, and nothing in the log; other entities are predicted on."""
    view = service.project.views["zones"]
    key = fence_key(service.project.name, view.log, partition_of(b"north", view.partitions))
    fence = Fence.decode(service.store.get(key))
    service.store.client.set(key, msgspec.structs.replace(fence, until=fence.next + 1).encode())
    elsewhere = next(f"z{i}" for i in range(99) if partition_of(b"z%d" % i, view.partitions) != partition_of(b"north", view.partitions))
    good = {"entities": ENTITIES | {"zone": elsewhere}, "id": "good"}
    for body in ({"entities": ENTITIES, "id": "a"}, {"instances": [{"entities": ENTITIES, "id": "b"}, good]}):
        answer = await service.predict(body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "rebuilding" in answer.json()["error"]
        assert "zones" in answer.json()["error"]
    assert (await service.predict(good)).status_code == 200
    service.store.client.set(key, fence.encode())
    assert (await service.predict({"entities": ENTITIES, "id": "a"})).status_code == 200
    assert (await service.logged()).keys() == {"good", "a"}


async def test_the_answer_may_leave_features_out(service: Service) -> None:
    """With "features": false an answer is the prediction alone."""
    answer = (await service.predict({"entities": ENTITIES, "features": False})).json()
    assert answer.keys() - {"degraded"} == {"prediction_id", "model", "version", "time", "probability"}
    batch = (await service.predict({"instances": [{"entities": ENTITIES}], "features": False})).json()["predictions"]
    assert batch[0].keys() == answer.keys()
    assert batch[0]["prediction_id"] != answer["prediction_id"]


async def test_a_regressor_answers_a_value(service: Service) -> None:
    """A second model beside the first answers under the name `value`."""
    await service.deploy(trained(service.project.models["fare"]))
    answer = (await service.predict({"entities": {"zone": "north", "distance": 1}, "time": "2023-11-14T22:13:20Z"}, "fare")).json()
    assert math.isfinite(answer["value"])
    assert answer["time"] == NOW_MS
    assert "probability" not in answer


BAD_REQUESTS = [
    ("nope", b"{}", 404, "nope"),
    ("fare", b'{"entities": {}}', 404, "tidemill train fare"),
    ("big_tip", b"", 400, "empty"),
    ("big_tip", b"{}", 400, "entities"),
    ("big_tip", b'{"entities": 5}', 400, "entities"),
    ("big_tip", b'{"entities": {"zone": "a"}}', 400, "driver_id"),
    ("big_tip", b'{"entities": {"zone": 1.5}}', 400, "zone"),
    ("big_tip", b'{"entities": {"zone": ["a"]}}', 400, "zone"),
    ("big_tip", b'{"instances": []}', 400, "instances"),
    ("big_tip", b'{"instances": [{}], "id": "x"}', 400, "instances"),
    ("big_tip", b'{"entities": {}, "colour": 1}', 400, "colour"),
    ("big_tip", b'{"entities": {"zone": NaN}}', 400, "JSON"),
    ("big_tip", b'{"entities": {}, "id": ""}', 400, "id"),
    ("big_tip", b'{"entities": {}, "time": -1}', 400, "time"),
    ("big_tip", b'{"entities": {}, "time": "2024-01-01T00:00:00"}', 400, "offset"),
    ("big_tip", b'{"entities": {"zone": ' + b"[" * 50_000, 400, "recursion"),
    ("big_tip", b'{"entities": {"zone": "\xff"}}', 400, "utf-8"),
    ("big_tip", b" " * 2_000_000, 413, "limit"),
]


async def test_a_bad_request_says_what_is_wrong(service: Service) -> None:
    """Each mistake has its status and names the field or the mend, and nothing is logged."""
    for model, body, status, named in BAD_REQUESTS:
        answer = await service.http.post(f"/predict/{model}", content=body)
        assert answer.status_code == status, answer.text
        shown = answer.json()
        assert named.lower() in (shown["error"] + shown["mend"]).lower()
    assert await service.logged() == {}


async def test_a_record_that_kafka_would_refuse_is_413(service: Service) -> None:
    """A prediction whose record is too large for the topic is refused before anything is sent, and others go on."""
    answer = await service.predict({"entities": ENTITIES | {"zone": "z" * 1_048_400}})
    assert answer.status_code == 413
    assert (await service.predict({"entities": ENTITIES})).status_code == 200


async def test_wrong_methods_and_paths(service: Service) -> None:
    """Ordinary HTTP mistakes have the common error shape."""
    assert (await service.http.get("/predict/big_tip")).status_code == 405
    assert (await service.http.get("/nothing")).json()["error"] == "no such path: /nothing"
    paths = (await service.http.get("/openapi.json")).json()["paths"]
    assert paths["/predict/{model}"]["post"]["requestBody"]["content"]["application/json"]["schema"]


async def test_metrics_show_models_and_latency(service: Service) -> None:
    """/metrics has the loaded version, predictions by version and latency by model."""
    await service.predict({"entities": ENTITIES})
    text = (await service.http.get("/metrics")).text
    assert 'tidemill_inference_model_loaded_info{model="big_tip",version="v1"} 1.0' in text
    assert 'tidemill_inference_predictions_total{model="big_tip",version="v1"}' in text
    assert 'tidemill_inference_request_seconds_count{model="big_tip"}' in text
