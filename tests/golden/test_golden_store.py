"""A store that an older tidemill wrote loads, serves and replays, bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import redis
from deltalake import DeltaTable
from tests.golden.store import (
    OFFLINE,
    REQUESTS,
    all_read,
    by_entity_and_tensor,
    entities,
    fences,
    golden,
    online,
    outputs,
    pinned,
    versions,
)
from tests.serving.conftest import serving

from tidemill.errors import ArtifactError
from tidemill.kernel.view import ViewKernel
from tidemill.models.artifact import check_manifest, load_artifact, stored_artifact
from tidemill.models.engine import Engine
from tidemill.offline.store import OfflineStore
from tidemill.proof.audit import audit
from tidemill.proof.partition_audit import AuditReport
from tidemill.proof.replay import logged, replay
from tidemill.records import encode
from tidemill.redis.link import RedisLink
from tidemill_inference.first_answers import FirstAnswers, Made
from tidemill_inference.messages import Instance, Prediction

VIEWS = golden().views


def first_answers() -> dict[str, bytes]:
    """What is kept for repeated requests, by their id."""
    prefix = b"golden.answer:"
    return {key.removeprefix(prefix).decode(): value for key, value in online().items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline store, copied to another place: tables and models may be moved."""
    return Path(shutil.copytree(OFFLINE, tmp_path_factory.mktemp("moved") / "offline"))


@pytest.fixture
def loaded(redis_url: str) -> Iterator[str]:
    """The URL of a real Valkey that holds the online store."""
    with redis.Redis.from_url(redis_url) as client:
        client.mset(online())
        yield redis_url


@pytest.fixture(scope="module")
def read(root: Path) -> dict[str, Any]:
    """Everything that is pinned but the answers of serving, read from the store now, as JSON has it."""
    found: dict[str, Any] = json.loads(json.dumps(all_read(online(), root)))
    return found


@pytest.mark.parametrize("what", ["keys", "definitions", "fences", "features", "tables", "outputs"])
def test_what_is_stored_reads_as_it_did(read: dict[str, Any], what: str) -> None:
    """Keys, fingerprints, fences, features, tables and the outputs of the models are the pinned ones."""
    assert read[what] == pinned()[what]


def test_nothing_else_is_pinned(read: dict[str, Any]) -> None:
    """No pinned part is left out, and every part is about something."""
    assert {*read, "answers"} == set(pinned())
    assert all(pinned().values())


def test_every_value_is_made_of_the_same_bytes() -> None:
    """Every stored value decodes and encodes to the same bytes, and no key is left over: there are entities, fences and first answers."""
    found = list(entities(online()))
    assert all(ViewKernel(view).encode(ViewKernel(view).decode(value)) == value for view, _, value in found)
    assert len(found) == 3 + 6 + 3
    assert len(found) + len(fences(online())) + len(first_answers()) == len(online())


def test_every_prediction_replays(root: Path) -> None:
    """Each logged prediction, by entity or by tensor, is recomputed bit for bit, and there are some of both models and with unknown values."""
    predictions = logged(OfflineStore(root))
    results = replay(golden(), OfflineStore(root), predictions)
    assert [result.differences for result in results if not result.equal] == []
    by_entity, tensors = by_entity_and_tensor(root)
    assert len(results) == by_entity + tensors
    assert by_entity > 80
    assert tensors == 6
    assert {(item.model, item.version) for item in predictions} == set(versions(root))
    assert any(None in item.inputs for item in predictions)
    assert all(item.stamp for item in predictions if item.entities)


def test_models_fit_their_declarations(root: Path) -> None:
    """Each manifest is for the views as they are declared, and the model gives its golden rows to the bit."""
    for name, version in versions(root):
        model, artifact = golden().models[name], stored_artifact(str(root), name, version)
        check_manifest(artifact.manifest, model, {view.name: ViewKernel(view) for view in model.views})
        engine = Engine(artifact)
        assert artifact.manifest.golden
        for row in artifact.manifest.golden:
            vector = np.array([np.nan if value is None else value for value in row.inputs], np.float32)
            assert engine.predict(vector) == row.output


def test_predictions_have_their_outcomes(root: Path) -> None:
    """The results join predictions of the log, in order of `seq` without gaps."""
    results = OfflineStore(root).scan("results")
    assert results["seq"].to_pylist() == list(range(len(results)))
    assert set(results["prediction"].to_pylist()) <= {item.id for item in logged(OfflineStore(root))}
    assert "joined" in results["status"].to_pylist()


@pytest.mark.integration
async def test_the_audit_finds_no_difference(loaded: str, root: Path) -> None:
    """Every entity and every fence of the online store is what the tables give."""
    async with RedisLink(loaded, timeout_seconds=10) as link:
        report = await audit(golden(), OfflineStore(root), link, wait_seconds=5)
    assert report == AuditReport(3 + 6 + 3 + 2 + 4 + 2, 0, [])


@pytest.mark.integration
async def test_serving_answers_as_it_did(loaded: str) -> None:
    """The answers for known and unknown entities at several times are the pinned ones."""
    async with serving(golden(), loaded) as http:
        for body, answer in zip(REQUESTS, pinned()["answers"], strict=True):
            found = await http.post("/get-online-features", json=body)
            assert found.json() == answer
    statuses = {status for answer in pinned()["answers"] for column in answer["results"] for status in column["statuses"]}
    assert statuses == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"}


@pytest.mark.integration
async def test_a_repeated_request_gets_its_first_answer(loaded: str, root: Path) -> None:
    """What is kept of each prediction that was asked for by id is its logged record, which is logged again instead of another."""
    predictions = {item.id: item for item in logged(OfflineStore(root))}
    assert len(first_answers()) > 80
    async with RedisLink(loaded, timeout_seconds=10) as link:
        for name in first_answers():
            record = predictions[name]
            other = msgspec.structs.replace(record, output=record.output + 1, served=record.served + 1, version="later")
            instance = Instance(name, record.subject, record.time, record.entities, own_id=True, own_time=True)
            prediction = Prediction(name, record.model, "later", record.time, "value", other.output, None)
            (settled,) = await FirstAnswers(link, golden().name).settle([Made(instance, prediction, encode(other))])
            assert isinstance(settled, Made)
            assert settled.repeated
            assert settled.value == encode(record)
            assert (settled.prediction.version, settled.prediction.output) == (record.version, record.output)


@pytest.mark.integration
async def test_one_changed_bit_of_the_online_store_is_noticed(loaded: str, root: Path) -> None:
    """The audit can fail: it finds the value with one bit turned."""
    key = next(key for key in sorted(online()) if key.startswith(b"{"))
    value = bytearray(online()[key])
    value[-1] ^= 1
    with redis.Redis.from_url(loaded) as client:
        client.set(key, bytes(value))
    async with RedisLink(loaded, timeout_seconds=10) as link:
        report = await audit(golden(), OfflineStore(root), link, wait_seconds=5)
    assert (report.mismatched, [found.entity for found in report.examples]) == (1, [key.partition(b"}")[2].decode()])


def test_one_changed_number_of_the_offline_store_is_noticed(root: Path, tmp_path: Path) -> None:
    """A tip that is another one makes the predictions that saw it replay otherwise; a model with one byte changed does not load."""
    moved = Path(shutil.copytree(root, tmp_path / "offline"))
    DeltaTable(moved / "views" / VIEWS["drivers"].log).update({"v_fare": "v_fare + 1.0"})
    results = replay(golden(), OfflineStore(moved), logged(OfflineStore(moved)))
    assert {found.name for result in results for found in result.differences} >= {"drivers__max_fare"}
    (name, version), *_ = versions(moved)
    model = moved / "models" / name / version / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ArtifactError):
        outputs(moved)


def test_one_changed_fence_is_noticed(read: dict[str, Any]) -> None:
    """A fence with another number is not the pinned one."""
    key = next(key for key, value in online().items() if key.startswith(b"fence"))
    altered = fences(online() | {key: online()[key].replace(b'"late":', b'"late":1', 1)})
    assert sum(altered[place] != fence for place, fence in read["fences"].items()) == 1


def test_a_deployment_names_the_stored_model(root: Path) -> None:
    """A model loads by the digest that its deployment promised, and by no other."""
    for name, version in versions(root):
        folder = f"models/{name}/{version}"
        digest = hashlib.sha256((root / folder / "manifest.json").read_bytes()).hexdigest()
        assert load_artifact(str(root), folder, digest).manifest.version == version
        with pytest.raises(ArtifactError):
            load_artifact(str(root), folder, "0" * 64)
