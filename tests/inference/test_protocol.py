"""The Open Inference Protocol against a running service: plain HTTP, and Triton's own clients as users have them."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tests.demo_state import trained
from tests.inference.conftest import Service

from tidemill.models.engine import load_engine

pytestmark = pytest.mark.integration

ROWS = np.array([[float(i + j) for j in range(12)] for i in range(3)], np.float32)


def body(data: Any = None, **changes: Any) -> dict[str, Any]:
    """An infer request of three rows."""
    tensor = {"name": "features", "shape": [3, 12], "datatype": "FP32", "data": ROWS.tolist() if data is None else data}
    return {"inputs": [tensor | changes]}


def expected(service: Service) -> list[float]:
    """What the model gives for ROWS, one by one."""
    engine = load_engine(trained(service.project.models["big_tip"]))
    return [engine.predict(row) for row in ROWS]


async def test_json_tensors_flat_nested_and_of_other_types(service: Service) -> None:
    """Flat and nested data, FP32, FP64 and whole numbers give the same bits, and `id` comes back."""
    path = "/v2/models/big_tip/infer"
    flat = ROWS.ravel().tolist()
    for data, changes in ((None, {}), (flat, {}), (flat, {"datatype": "FP64"}), ([int(x) for x in flat], {"datatype": "INT64"})):
        answer = (await service.http.post(path, json=body(data, **changes) | {"id": "q7", "model_name": "ignored"})).json()
        (output,) = answer["outputs"]
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("big_tip", "v1", "q7")
        assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [3, 1])
        assert output["data"] == expected(service)
    logged = await service.logged()
    first = answer["parameters"]["prediction_id"]
    records = [logged[name][0] for name in (first, f"{first}-1", f"{first}-2")]
    assert [record.output for record in records] == expected(service)
    assert [record.inputs for record in records] == ROWS.tolist()
    assert (len(logged), records[0].stamp, records[0].entities, records[0].subject) == (12, [], {}, None)


async def test_null_is_a_missing_value(service: Service) -> None:
    """null in a JSON tensor is NaN for the model and null in the log."""
    answer = await service.http.post("/v2/models/big_tip/versions/v1/infer", json=body([None] * 12, shape=[1, 12]))
    assert answer.status_code == 200
    ((record,),) = (await service.logged()).values()
    assert record.inputs == [None] * 12


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "other"}, "other"),
    ({"shape": [3, 11]}, "[3, 11]"),
    ({"shape": [2, 12]}, "shape"),
    ({"shape": [36]}, "[36]"),
    ({"shape": [-3, -12]}, "-12"),
    ({"shape": [10**30, 12]}, "shape"),
    ({"datatype": "BYTES"}, "BYTES"),
    ({"data": ["1.0"] * 36}, "str"),
    ({"data": [True] * 36}, "bool"),
    ({"data": [1e300] * 36}, "float32"),
    ({"data": [[1.0] * 12, [1.0] * 12, [1.0] * 11]}, "shape"),
    ({"data": 5}, "array"),
    ({"parameters": {"binary_data_size": 144}}, "binary"),
    ({"parameters": {"shared_memory_region": "x"}}, "shared memory"),
]


async def test_bad_tensors_are_400_with_the_protocols_error(service: Service) -> None:
    """Whatever does not fit the model is refused with the name of what does not fit, in `error`, and nothing is logged."""
    path = "/v2/models/big_tip/infer"
    changes: dict[str, Any]
    for changes, named in BAD:
        answer = await service.http.post(path, json=body(**changes))
        assert answer.status_code == 400, changes
        assert answer.json().keys() == {"error"}
        assert named in answer.json()["error"]
        assert answer.headers["content-type"] == "application/json"
    good = body()
    for outputs, named in (
        ([{"name": "label"}], "label"),
        ([{"name": "probability", "parameters": {"classification": 1}}], "classification"),
    ):
        answer = await service.http.post(path, json=good | {"outputs": outputs})
        assert answer.status_code == 400
        assert named in answer.json()["error"]
    for content, headers, status in (
        (b"", {}, 400),
        (b"{}", {}, 400),
        (b"{", {}, 400),
        (json.dumps(good).encode() + b"xx", {"Inference-Header-Content-Length": str(len(json.dumps(good)))}, 400),
        (b"{}", {"Inference-Header-Content-Length": "999"}, 400),
        (b"{}", {"Inference-Header-Content-Length": "two"}, 400),
        (b"1234567", {"Inference-Header-Content-Length": "0"}, 400),
        (b"not gzip", {"Content-Encoding": "gzip"}, 400),
        (b"{}", {"Content-Encoding": "br"}, 415),
        (gzip.compress(b" " * 3_000_000), {"Content-Encoding": "gzip"}, 413),
        (b" " * 2_000_000, {}, 413),
    ):
        answer = await service.http.post(path, content=content, headers=headers)
        assert answer.status_code == status, (content[:20], headers)
        assert answer.json().keys() - {"mend"} == {"error"}, (content[:20], headers)
    assert await service.logged() == {}


async def test_compressed_requests(service: Service) -> None:
    """gzip and deflate bodies are understood."""
    plain = json.dumps(body()).encode()
    for content, encoding in ((gzip.compress(plain), "gzip"), (zlib.compress(plain), "deflate")):
        answer = await service.http.post("/v2/models/big_tip/infer", content=content, headers={"Content-Encoding": encoding})
        assert answer.json()["outputs"][0]["data"] == expected(service)


async def test_a_raw_request_is_nothing_but_the_tensor(service: Service) -> None:
    """With a JSON part of length 0 the body is the input's bytes, and the answer is binary."""
    answer = await service.http.post("/v2/models/big_tip/infer", content=ROWS.tobytes(), headers={"Inference-Header-Content-Length": "0"})
    length = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[length:], np.float32).tolist() == expected(service)


async def test_server_and_models_describe_themselves(service: Service) -> None:
    """Server, health, metadata, readiness and index, and 404 with `error` for what is not there."""
    get = service.http.get
    for path in ("/v2", "/v2/"):
        assert (await get(path)).json()["extensions"] == ["binary_tensor_data", "model_repository"]
    assert (await get("/v2/health/live")).json() == {"live": True}
    assert (await get("/v2/health/ready")).json() == {"live": True, "ready": True}
    assert (await get("/v2/models")).json() == {"models": ["big_tip"]}
    for path in ("/v2/models/big_tip", "/v2/models/big_tip/versions/v1"):
        metadata = (await get(path)).json()
        assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 12]}]
        assert metadata["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1, 1]}]
        assert (await get(f"{path}/ready")).json() == {"name": "big_tip", "ready": True}
    for path in ("/v2/models/nope", "/v2/models/fare/ready", "/v2/models/big_tip/versions/v9", "/v2/nothing"):
        answer = await get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]
    index = (await service.http.post("/v2/repository/index")).json()
    assert index == [{"name": "big_tip", "version": "v1", "state": "READY", "reason": ""}]


async def test_tritons_asyncio_client(service: Service) -> None:
    """Triton's client with its defaults (binary both ways), with JSON, compressed, and its other calls."""
    async with triton_aio.InferenceServerClient(str(service.http.base_url).removeprefix("http://")) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("big_tip", "v1")
        assert not await client.is_model_ready("nope")
        assert (await client.get_model_metadata("big_tip"))["name"] == "big_tip"
        assert (await client.get_model_repository_index())[0]["state"] == "READY"
        for binary_in, outputs in (
            (True, None),
            (False, None),
            (False, [triton_aio.InferRequestedOutput("probability", binary_data=False)]),
        ):
            tensor = triton_aio.InferInput("features", list(ROWS.shape), "FP32")
            tensor.set_data_from_numpy(ROWS, binary_data=binary_in)
            for compression in (None, "gzip", "deflate"):
                result = await client.infer(
                    "big_tip", [tensor], outputs=outputs, request_compression_algorithm=compression, request_id="r1"
                )
                assert result.as_numpy("probability").ravel().tolist() == expected(service)
                assert result.get_response()["id"] == "r1"
        with pytest.raises(triton.InferenceServerException, match="unknown model 'nope'"):
            await client.infer("nope", [tensor])


async def test_tritons_synchronous_client(service: Service) -> None:
    """The synchronous client, which sends no content type at all."""
    address = str(service.http.base_url).removeprefix("http://")
    assert await asyncio.to_thread(ask_synchronously, address) == expected(service)


def ask_synchronously(address: str) -> list[float]:
    """One call with the defaults of Triton's synchronous client, which sends no content type."""
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("features", list(ROWS.shape), "FP32")
        tensor.set_data_from_numpy(ROWS)
        outputs: list[float] = client.infer("big_tip", [tensor], model_version="v1").as_numpy("probability").ravel().tolist()
        return outputs
