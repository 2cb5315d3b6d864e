"""Which version serves: swaps under load, broken artifacts, restarts."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from tests.demo_state import NOW_MS, saved, trained
from tests.inference.conftest import ENTITIES, Service, running
from tests.patience import PATIENCE_SECONDS

from tidemill.models.artifact import Artifact
from tidemill.records import DeployedVersion, DeploymentRecord, encode
from tidemill_inference.loaded import LoadedVersion
from tidemill_inference.registry import Registry

pytestmark = pytest.mark.integration


async def test_a_swap_under_load_fails_no_request(service: Service) -> None:
    """While clients predict without a pause four versions follow each other; every request succeeds, with the version it names."""
    model = service.project.models["big_tip"]
    versions = {f"v{i}": trained(model, f"v{i}", seed=i) for i in range(2, 6)}
    seen: dict[str, set[float]] = {}
    stop = asyncio.Event()

    async def client(number: int) -> int:
        count = 0
        while not stop.is_set():
            answer = await service.predict({"entities": ENTITIES, "time": NOW_MS, "id": f"c{number}-{count}"})
            assert answer.status_code == 200, answer.text
            seen.setdefault(answer.json()["version"], set()).add(answer.json()["probability"])
            count += 1
        return count

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    for artifact in versions.values():
        await service.deploy(artifact)
    stop.set()
    asked = sum(await asyncio.gather(*clients))
    logged = await service.logged()
    assert len(logged) == asked
    assert {record.version for (record,) in logged.values()} == set(seen)
    assert seen.keys() > {"v1"}
    assert all(len(outputs) == 1 for outputs in seen.values())


async def refused(service: Service, record: DeploymentRecord | bytes, reason: str) -> None:
    """Announce a version that cannot serve; the one before it goes on and the index says why."""
    await service.announce(record if isinstance(record, bytes) else encode(record))
    async with asyncio.timeout(180):
        while True:
            states = (await service.http.post("/v2/repository/index")).json()
            if any(state["state"] == "UNAVAILABLE" and reason in state["reason"] for state in states):
                break
            await asyncio.sleep(0.02)
    answer = await service.predict({"entities": ENTITIES})
    assert (answer.status_code, answer.json()["version"]) == (200, "v1")


async def test_what_cannot_serve_is_refused_and_the_old_version_goes_on(service: Service) -> None:
    """Damaged files, wrong digests, other definitions, other inputs and a model that gives no number each leave v1 in charge."""
    root, model = Path(service.settings.offline.root), service.project.models["big_tip"]
    good = trained(model, "bad1", seed=3)
    record = saved(str(root), good)
    (root / record.artifact / "model.onnx").write_bytes(good.onnx[:-10])
    await refused(service, record, "model.onnx is not the one that was trained")
    await refused(service, msgspec.structs.replace(record, sha256="0" * 64), "not the one that was deployed")
    await refused(service, msgspec.structs.replace(record, artifact="models/big_tip/none"), "cannot be read")
    await refused(service, msgspec.structs.replace(record, artifact="../etc"), "not a folder")
    other = msgspec.structs.replace(good.manifest, version="bad2", definitions={"zones": "x", "drivers": "y"})
    await refused(service, saved(str(root), Artifact(other, good.onnx)), "another definition of view zones, drivers")
    other = msgspec.structs.replace(good.manifest, version="bad3", inputs=good.manifest.inputs[1:])
    await refused(service, saved(str(root), Artifact(other, good.onnx)), "other inputs")
    golden = [msgspec.structs.replace(row, output=row.output + 0.1) for row in good.manifest.golden]
    other = msgspec.structs.replace(good.manifest, version="bad4", golden=golden)
    await refused(service, saved(str(root), Artifact(other, good.onnx)), "where it gave")
    await service.announce(b"not a deployment")
    await service.announce(encode(msgspec.structs.replace(record, model="stranger")))
    metrics = (await service.http.get("/metrics")).text
    assert 'tidemill_inference_deployment_failures_total{model="big_tip"}' in metrics
    await service.deploy(trained(model, "v2", seed=9))
    assert (await service.http.post("/v2/repository/index")).json() == [
        {"name": "big_tip", "version": "v2", "state": "READY", "reason": ""}
    ]


async def test_a_repaired_artifact_serves_without_another_deployment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be loaded is tried again, so a restored file is enough."""
    monkeypatch.setattr("tidemill_inference.registry.RELOAD_SECONDS", 0.1)
    root, artifact = Path(service.settings.offline.root), trained(service.project.models["fare"], "v7")
    record = saved(str(root), artifact)
    manifest = root / record.artifact / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:100])
    await service.announce(encode(record))
    answer = await service.until("/v2/models/fare", 503)
    assert "cannot be loaded" in answer.json()["error"]
    manifest.write_bytes(whole)
    await service.deploy(trained(service.project.models["big_tip"], "v2"))  # wakes the follower, whose wait was set before
    await service.serving("fare", "v7")


async def test_a_load_that_hangs_stops_nothing_else(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an offline store that says nothing, what serves goes on and the index says why the new version does not; it is loaded once that ends."""
    released, load, loads = threading.Event(), Registry._load, []

    def hanging(self: Registry, wanted: DeployedVersion) -> LoadedVersion:
        loads.append(wanted.version)
        assert released.wait(PATIENCE_SECONDS)
        return load(self, wanted)

    monkeypatch.setattr(Registry, "_load", hanging)
    monkeypatch.setattr("tidemill_inference.registry.LOAD_SECONDS", 1)
    monkeypatch.setattr("tidemill_inference.registry.RELOAD_SECONDS", 0.1)
    record = saved(service.settings.offline.root, trained(service.project.models["big_tip"], "v2"))
    await service.announce(encode(record))
    async with asyncio.timeout(180):
        while "within 1 s" not in (index := (await service.http.post("/v2/repository/index")).text):
            await asyncio.sleep(0.05)
    assert '"version":"v1","state":"READY"' in index
    await asyncio.sleep(2.5)  # it is tried again, but nothing more hangs
    assert loads == ["v2"]
    assert (await service.predict({"entities": ENTITIES})).json()["version"] == "v1"
    released.set()
    await service.serving("big_tip", "v2")


async def test_a_restart_finds_the_newest_version_that_works(service: Service) -> None:
    """A new process reads the deployments from the beginning; where the newest is broken it serves the one before."""
    root, model = service.settings.offline.root, service.project.models["big_tip"]
    await service.deploy(trained(model, "v2", seed=2))
    record = saved(root, trained(model, "v3", seed=3))
    (Path(root) / record.artifact / "manifest.json").unlink()
    await service.announce(encode(record))
    async with running(service):
        index = {state["state"]: state["version"] for state in (await service.http.post("/v2/repository/index")).json()}
        assert index == {"READY": "v2", "UNAVAILABLE": "v3"}
        assert (await service.predict({"entities": ENTITIES})).json()["version"] == "v2"


async def test_an_older_version_can_be_deployed_again(service: Service) -> None:
    """A rollback is a deployment like any other, and its predictions are what they were."""
    model = service.project.models["big_tip"]
    ask = {"entities": ENTITIES, "time": NOW_MS}
    before = (await service.predict(ask)).json()["probability"]
    await service.deploy(trained(model, "v2", seed=5))
    assert (await service.predict(ask)).json()["probability"] != before
    await service.deploy(trained(model))
    assert (await service.predict(ask)).json()["probability"] == before


async def test_a_service_without_models_is_ready_and_says_what_to_do(bare: Service) -> None:
    """Ready means that deployments were read; a model that was never trained is 404 with the mend, for every route."""
    answers = [
        await bare.predict({"entities": {}}),
        await bare.http.get("/v2/models/big_tip"),
        await bare.http.get("/v2/models/big_tip/ready"),
    ]
    for answer in answers:
        assert answer.status_code == 404
        assert "tidemill train big_tip" in answer.text
    assert (await bare.http.get("/v2/models")).json() == {"models": []}
    assert (await bare.http.get("/v2/health/ready")).status_code == 200
