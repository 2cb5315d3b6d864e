"""Several versions of a model at once, over HTTP: who answers what, restarts, files that are broken, and what is released."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.demo_state import NOW_MS, saved, trained
from tests.inference.conftest import ENTITIES, Service, running
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import DeploymentChanged
from tidemill.kernel.keys import entity_key
from tidemill.models.artifact import Artifact
from tidemill.models.engine import Engine
from tidemill.models.roles import Seat, Traffic, traffic_key
from tidemill.operations.deploying import Deploying
from tidemill.records import DeploymentRecord, OtherVersion, Role, encode
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.deployments import append_deployment

pytestmark = pytest.mark.integration

ROWS = [[float(i)] * 12 for i in range(3)]


def version(service: Service, name: str, seed: int) -> Artifact:
    """A version of the tests' model."""
    return trained(service.project.models["big_tip"], name, seed)


async def deployed(service: Service, champion: str, *others: tuple[str, Role, float]) -> DeploymentRecord:
    """Save and announce several versions, and wait until those serve that can answer something."""
    root = service.settings.offline.root
    first = saved(root, version(service, champion, seed=int(champion[1:])))
    beside = []
    for name, role, share in others:
        stored = saved(root, version(service, name, seed=int(name[1:])))
        beside.append(OtherVersion(name, role, stored.artifact, stored.sha256, share))  # type: ignore[arg-type]
    record = DeploymentRecord("big_tip", champion, first.artifact, first.sha256, NOW_MS, {}, beside)
    await service.announce(encode(record))
    for name in (champion, *(name for name, _, _ in others)):
        await service.serving("big_tip", name)
    return record


def ask(zone: str, driver: int = 7, **more: Any) -> dict[str, Any]:
    """A request for other entities."""
    return {"entities": ENTITIES | {"zone": zone, "driver_id": driver}, "time": NOW_MS, "features": False} | more


def chosen(zone: str, driver: int = 7, share: float = 0.5) -> str:
    """The version that is to answer, computed by hand."""
    traffic = Traffic("big_tip", [Seat("v2", "champion", 1 - share), Seat("v3", "challenger", share), Seat("v4", "shadow", 0.0)])
    return traffic.version(traffic_key([entity_key(zone), entity_key(driver)], ""))


async def test_entities_go_by_share_and_stay(service: Service) -> None:
    """Single and batched requests of an entity go to one version, with its outputs, names and log records; the shadow answers nothing."""
    await deployed(service, "v2", ("v3", "challenger", 0.5), ("v4", "shadow", 0.0))
    zones = [f"zone-{i}" for i in range(40)]
    singles = [(await service.predict(ask(zone))).json() for zone in zones]
    assert [answer["version"] for answer in singles] == [chosen(zone) for zone in zones]
    assert {answer["version"] for answer in singles} == {"v2", "v3"}
    instances = [{name: value for name, value in ask(zone, id=zone).items() if name != "features"} for zone in zones]
    answers = (await service.predict({"instances": instances, "features": False})).json()["predictions"]
    assert [(item["version"], item["probability"]) for item in answers] == [(item["version"], item["probability"]) for item in singles]
    logged = await service.logged()
    assert [logged[zone][0].version for zone in zones] == [item["version"] for item in singles]
    counted = Counter(record.version for (record,) in logged.values())
    text = (await service.http.get("/metrics")).text
    assert all(f'model_loaded_info{{model="big_tip",version="{name}"}} 1.0' in text for name in ("v2", "v3", "v4"))
    assert counted.keys() == {"v2", "v3"}


async def test_tensors_and_versions_in_the_path(service: Service) -> None:
    """A tensor has no entity: its prediction's id chooses; whoever names a version gets it, a shadow too; all are described."""
    await deployed(service, "v2", ("v3", "challenger", 0.5), ("v4", "shadow", 0.0))
    body = {"inputs": [{"name": "features", "shape": [3, 12], "datatype": "FP32", "data": ROWS}]}
    traffic, seen = Traffic("big_tip", [Seat("v2", "champion", 0.5), Seat("v3", "challenger", 0.5)]), set()
    for _ in range(30):
        answer = (await service.http.post("/v2/models/big_tip/infer", json=body)).json()
        assert answer["model_version"] == traffic.version(answer["parameters"]["prediction_id"].encode())
        seen.add(answer["model_version"])
    assert seen == {"v2", "v3"}
    for name in ("v2", "v3", "v4"):
        answer = (await service.http.post(f"/v2/models/big_tip/versions/{name}/infer", json=body)).json()
        engine = Engine.of_onnx(name, version(service, name, int(name[1:])).onnx, 12, "probability")
        assert answer["model_version"] == name
        assert answer["outputs"][0]["data"] == [engine.predict(row) for row in np.array(ROWS, np.float32)]
    assert (await service.http.get("/v2/models/big_tip")).json()["versions"] == ["v2", "v3", "v4"]
    assert (await service.http.get("/v2/models/big_tip/versions/v3")).json()["versions"] == ["v3"]
    index = (await service.http.post("/v2/repository/index")).json()
    assert [(item["version"], item["state"]) for item in index] == [("v2", "READY"), ("v3", "READY"), ("v4", "READY")]
    missing = await service.http.get("/v2/models/big_tip/versions/v1/ready")
    assert missing.status_code == 404
    assert "big_tip version v3" in missing.json()["error"]


async def test_a_version_that_cannot_be_loaded_leaves_the_others_serving(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its share is the champion's until its files are whole; then it answers, without another deployment, and a restart finds the same."""
    monkeypatch.setattr("tidemill_inference.registry.RELOAD_SECONDS", 0.1)
    root = service.settings.offline.root
    stored = saved(root, version(service, "v3", 3))
    manifest = Path(root) / stored.artifact / "manifest.json"
    whole = manifest.read_bytes()
    manifest.unlink()
    champion = saved(root, version(service, "v2", 2))
    beside = [OtherVersion("v3", "challenger", stored.artifact, stored.sha256, 0.5)]
    await service.announce(encode(DeploymentRecord("big_tip", "v2", champion.artifact, champion.sha256, NOW_MS, {}, beside)))
    await service.serving("big_tip", "v2")
    zones = [f"zone-{i}" for i in range(20)]
    assert {(await service.predict(ask(zone))).json()["version"] for zone in zones} == {"v2"}
    index = (await service.http.post("/v2/repository/index")).json()
    assert [(item["version"], item["state"]) for item in index] == [("v2", "READY"), ("v3", "UNAVAILABLE")]
    manifest.write_bytes(whole)
    await service.serving("big_tip", "v3")
    answered = [(await service.predict(ask(zone))).json()["version"] for zone in zones]
    assert answered == [chosen(zone) for zone in zones]
    async with running(service):
        assert [(await service.predict(ask(zone))).json()["version"] for zone in zones] == answered


async def test_a_deployment_that_cannot_be_is_passed_over(service: Service) -> None:
    """Shares beyond 1 are refused as a whole, now and at a start; a later deployment is taken."""
    record = saved(service.settings.offline.root, version(service, "v9", 9))
    beside = [OtherVersion(name, "challenger", record.artifact, record.sha256, 0.7) for name in ("a", "b")]
    await service.announce(encode(DeploymentRecord("big_tip", "v9", record.artifact, record.sha256, NOW_MS, {}, beside)))
    await service.deploy(trained(service.project.models["fare"]))  # by then the one before was looked at
    assert (await service.predict(ask("north"))).json()["version"] == "v1"
    async with running(service):
        assert (await service.predict(ask("north"))).json()["version"] == "v1"
        await service.deploy(version(service, "v9", 9))


async def test_shares_change_under_load_and_old_versions_are_released(service: Service) -> None:
    """While clients ask, a challenger comes, grows, is promoted and stands alone; no request fails, and nothing holds the versions that left."""
    engines: dict[str, weakref.ref[Engine]] = {}
    made = Engine.of_onnx.__func__  # type: ignore[attr-defined]

    def watched(cls: type[Engine], label: str, *args: Any) -> Engine:
        engine: Engine = made(cls, label, *args)
        engines[label] = weakref.ref(engine)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "of_onnx", classmethod(watched))
        stop, failed, asked = asyncio.Event(), [], Counter[str]()

        async def client(number: int) -> None:
            while not stop.is_set():
                answer = await service.predict(ask(f"zone-{number}"))
                failed.extend([] if answer.status_code == 200 else [answer.text])
                asked[answer.json()["version"]] += 1

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        await deployed(service, "v62", ("v63", "challenger", 0.1))
        await deployed(service, "v62", ("v63", "challenger", 0.5))
        await deployed(service, "v63", ("v62", "shadow", 0.0))
        await deployed(service, "v64")
        await service.until("/v2/models/big_tip/versions/v63", 404)
        stop.set()
        await asyncio.gather(*clients)
    assert failed == []
    assert asked.total() > 0
    async with asyncio.timeout(PATIENCE_SECONDS):  # answers that shadows are still to give hold their versions
        while {label for label, engine in engines.items() if engine() is not None and label.startswith("big_tip ")} != {"big_tip v64"}:
            await asyncio.sleep(0.05)
            gc.collect()
    text = (await service.http.get("/metrics")).text
    shown = [name for name in ("v62", "v63", "v64") if f'model_loaded_info{{model="big_tip",version="{name}"}} 1.0' in text]
    assert shown == ["v64"]


async def test_a_repetition_keeps_the_version_that_answered_first(service: Service) -> None:
    """Another share, another version: who repeats a request with its id gets the first answer, and its version."""
    zone = next(f"zone-{i}" for i in range(99) if chosen(f"zone-{i}", share=1.0) == "v3" != chosen(f"zone-{i}", share=0.1))
    await deployed(service, "v2", ("v3", "challenger", 0.1))
    first = await service.predict(ask(zone, id="first"))
    assert first.json()["version"] == "v2"
    await deployed(service, "v2", ("v3", "challenger", 1.0))
    assert (await service.predict(ask(zone))).json()["version"] == "v3"
    assert (await service.predict(ask(zone, id="first"))).content == first.content


async def test_errors_have_the_shape_of_their_route(service: Service) -> None:
    """Open Inference routes explain in one text, every other route in cause and mend."""
    shown = (await service.http.get("/v2/models/nope")).json()
    assert shown.keys() == {"error"}
    for answer in (await service.predict({"entities": {}}, "nope"), await service.http.get("/nothing")):
        assert answer.json().keys() == {"error", "mend"}


async def act(service: Service, action: str, **body: Any) -> list[tuple[str, str, float]]:
    """Do something with the versions of the tests' model over HTTP; returns those that serve from then on."""
    answer = await service.http.post(f"/models/big_tip/{action}", json=body)
    assert answer.status_code == 200, answer.text
    return [(seat["version"], seat["role"], seat["share"]) for seat in answer.json()]


async def serves(service: Service) -> list[tuple[str, str, float]]:
    """The versions of the tests' model that serve now."""
    shown = (await service.http.get("/models/big_tip")).json()
    assert shown in (await service.http.get("/models")).json()
    return [(seat["version"], seat["role"], seat["share"]) for seat in shown["serving"]]


async def test_versions_change_their_roles_over_http(service: Service) -> None:
    """A shadow becomes a challenger, then the champion; a rollback brings the old one back; all agree, also after a restart, and no request fails."""
    root = service.settings.offline.root
    for name in ("v2", "v3"):
        saved(root, version(service, name, int(name[1:])))
    stated = await act(service, "deploy", version="v2")
    assert stated == [("v2", "champion", 1.0)]
    await service.serving("big_tip", "v2")
    failed, stop = [], asyncio.Event()

    async def ask_on() -> None:
        for i in itertools.count():
            answer = await service.predict(ask(f"zone-{i % 50}"))
            if answer.status_code != 200:
                failed.append(answer.text)
            if stop.is_set():
                return

    client = asyncio.create_task(ask_on())
    for action, body, expected in (
        ("shadow", {"version": "v3"}, [("v2", "champion", 1.0), ("v3", "shadow", 0.0)]),
        ("canary", {"version": "v3", "share": 0.25}, [("v2", "champion", 0.75), ("v3", "challenger", 0.25)]),
        ("promote", {"version": "v3"}, [("v3", "champion", 1.0)]),
        ("rollback", {}, [("v2", "champion", 1.0)]),
        ("shadow", {"version": "v3"}, [("v2", "champion", 1.0), ("v3", "shadow", 0.0)]),
    ):
        assert await act(service, action, **body) == expected
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await serves(service) != expected:
                await asyncio.sleep(0.02)
    stop.set()
    await client
    assert failed == []
    async with running(service):
        assert await serves(service) == [("v2", "champion", 1.0), ("v3", "shadow", 0.0)]
        assert await act(service, "retire", version="v3") == [("v2", "champion", 1.0)]


async def test_what_cannot_be_done_is_told(service: Service) -> None:
    """A model, a version, an action, a share or a body that is none: each with the right status and a mend; nothing is deployed."""
    saved(service.settings.offline.root, version(service, "v2", 2))
    await act(service, "deploy", version="v2")
    for path, body, status, says in (
        ("nothing/deploy", {"version": "v2"}, 404, "big_tip"),
        ("big_tip/explode", {"version": "v2"}, 400, "choose from deploy, shadow, canary, promote, rollback, retire"),
        ("big_tip/deploy", {"version": "v9"}, 404, "choose one of: v1, v2"),
        ("big_tip/deploy", {}, 400, "name one: big_tip@VERSION"),
        ("big_tip/canary", {"version": "v2", "share": 5}, 400, "give 0.05 for 5 %"),
        ("big_tip/canary", {"version": "v2", "share": 0.5}, 409, "v2 is the champion"),
        ("big_tip/retire", {"version": "v3"}, 409, "v3 does not serve"),
        ("big_tip/shadow", {"versoin": "v2"}, 400, "versoin"),
    ):
        answer = await service.http.post(f"/models/{path}", json=body)
        assert answer.status_code == status, answer.text
        assert says in answer.text
    assert (await service.http.get("/models/nothing")).status_code == 404


async def test_two_who_change_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later record counts; whose change was overtaken is told, so nobody believes in a deployment that is none."""
    root = service.settings.offline.root
    for name in ("v2", "v3"):
        saved(root, version(service, name, int(name[1:])))
    deploying = Deploying(service.settings.kafka, service.project, root)
    await deploying.act("big_tip", "deploy", "v2")
    append = append_deployment

    async def overtaken(settings: KafkaSettings, project: str, record: DeploymentRecord, seconds: float) -> None:
        monkeypatch.undo()
        await deploying.act("big_tip", "deploy", "v3")
        await append(settings, project, record, seconds)

    monkeypatch.setattr("tidemill.operations.deploying.append_deployment", overtaken)
    with pytest.raises(DeploymentChanged, match="somebody else deployed v3 at the same time"):
        await deploying.act("big_tip", "shadow", "v3")
