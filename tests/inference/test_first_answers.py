"""A repeated request is answered from the first record of its id: after new events, new versions, crashes, and by any process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.demo_state import NOW_MS, trained, trip
from tests.inference.conftest import ENTITIES, Service, running
from tests.inference.crashing import POINTS
from tests.inference.test_failures import environment_of, renamed, started
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import CorruptState
from tidemill.records import PredictionRecord, encode
from tidemill_inference import first_answers as module
from tidemill_inference.first_answers import Made, _first, _FirstAnswer
from tidemill_inference.messages import FeatureShown, Instance, PredictionAnswer

pytestmark = pytest.mark.integration
ASK = {"entities": ENTITIES, "subject": "trip-1", "time": NOW_MS, "id": "a"}


def more_trips(service: Service) -> None:
    """Events that change every feature of the entities asked for."""
    service.store.apply([trip(NOW_MS - 1000 * i, "north", fare=500.0, tip=9.0, driver=7) for i in range(10)])


def repetitions() -> float:
    """How many predictions were answered from what was kept, in this process."""
    return REGISTRY.get_sample_value("tidemill_inference_predictions_repeated_total", {"model": "big_tip"}) or 0.0


async def test_a_repetition_gets_the_first_answer(service: Service) -> None:
    """Byte for byte, after new events and a new version; alone, in a batch, and twice in one batch; the log has one record, repeated."""
    before = repetitions()
    first = await service.predict(ASK)
    more_trips(service)
    await service.deploy(trained(service.project.models["big_tip"], "v2", seed=1))
    again = await service.predict(ASK)
    assert again.content == first.content
    batch = await service.predict({"instances": [ASK, ASK | {"id": "b"}, ASK | {"id": "b"}]})
    of_batch = batch.json()["predictions"]
    assert of_batch[0] == first.json()
    assert of_batch[1] == of_batch[2] != first.json() | {"prediction_id": "b"}
    assert of_batch[1]["version"] == "v2"
    logged = await service.logged()
    assert logged["a"] == [logged["a"][0]] * 3
    assert logged["b"] == [logged["b"][0]] * 2
    assert repetitions() - before == 3


async def test_without_a_time_the_first_request_s_counts(service: Service) -> None:
    """A request that leaves the time open may be repeated later: it is the same request, at the first one's time."""
    ask = {"entities": ENTITIES, "id": "open", "features": False}
    first = await service.predict(ask)
    await asyncio.sleep(0.01)
    again = await service.predict(ask)
    assert again.content == first.content
    assert "features" not in again.json()


@pytest.mark.parametrize(
    ("model", "change", "named"),
    [
        ("big_tip", {"entities": ENTITIES | {"zone": "south", "member": None}}, "member, zone differ"),
        ("big_tip", {"entities": ENTITIES | {"distance": 2.25}}, "distance differ"),
        ("big_tip", {"subject": "trip-2"}, "subject differ"),
        ("big_tip", {"time": NOW_MS + 1}, "time differ"),
        ("fare", {}, "model differ"),
    ],
)
async def test_another_request_cannot_have_the_id(service: Service, model: str, change: dict[str, Any], named: str) -> None:
    """It gets 409, alone and in its place in a batch, and is not logged; the others of the batch are answered."""
    await service.deploy(trained(service.project.models["fare"]))
    await service.predict(ASK)
    other = ASK | change
    refused = await service.predict(other, model)
    assert refused.status_code == 409
    assert named in refused.json()["error"]
    assert "another id" in refused.json()["mend"]
    batch = (await service.predict({"instances": [other, ASK | {"id": "c"}]}, model)).json()["predictions"]
    assert batch[0] == refused.json()
    assert batch[1]["prediction_id"] == "c"
    logged = await service.logged()
    assert (len(logged["a"]), len(logged["c"])) == (1, 1)


async def test_generated_ids_cost_nothing(service: Service) -> None:
    """Only what a client may repeat is kept, for a limited time."""
    held = set(service.store.client.keys())
    await service.predict({"entities": ENTITIES})
    await service.predict({"instances": [{"entities": ENTITIES}, {"entities": ENTITIES, "id": "mine"}]})
    (key,) = set(service.store.client.keys()) - held
    assert key == f"{service.project.name}.answer:mine".encode()
    assert 0 < int(service.store.client.ttl(key)) <= 1800


async def test_many_at_once_agree(service: Service) -> None:
    """Of requests with one id that overlap, with events flowing in between, all get one answer."""
    asked = [asyncio.create_task(service.predict(ASK)) for _ in range(20)]
    more_trips(service)
    asked += [asyncio.create_task(service.predict(ASK)) for _ in range(20)]
    answers = {answer.content for answer in await asyncio.gather(*asked)}
    assert len(answers) == 1
    assert len(set(map(encode, (await service.logged())["a"]))) == 1


async def test_an_id_whose_time_ends_while_it_is_stored(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis takes no time to live of zero or less: an id that is remembered to the last moment is stored for one millisecond more."""
    first = await service.predict(ASK)
    late = monotonic() + module.KEEP_SECONDS + 1
    monkeypatch.setattr(module, "monotonic", lambda: late)
    assert (await service.predict(ASK)).content == first.content


async def test_what_redis_lost_is_put_back(service: Service) -> None:
    """When Redis forgets a prediction, the process that made it answers a repetition as before, and whoever is asked next does too."""
    first = (await service.predict(ASK)).json()
    key = f"{service.project.name}.answer:a"
    kept = service.store.client.get(key)
    service.store.client.delete(key)
    more_trips(service)
    assert (await service.predict(ASK)).json() == first
    assert service.store.client.get(key) == kept
    assert len(set(map(encode, (await service.logged())["a"]))) == 1


@pytest.mark.parametrize("limit", [("REMEMBERED_BYTES", 0), ("KEEP_SECONDS", 0.001)])
async def test_the_limit_what_nobody_remembers_is_answered_anew(
    service: Service, monkeypatch: pytest.MonkeyPatch, limit: tuple[str, float]
) -> None:
    """When Redis and the process have forgotten an id, a repetition is computed anew and the log has both records, in order: readers take the first."""
    monkeypatch.setattr(module, *limit)
    async with running(service):  # one that was made under this limit
        await service.serving("big_tip", "v1")
        first = (await service.predict(ASK)).json()
        service.store.client.delete(f"{service.project.name}.answer:a")
        more_trips(service)
        again = (await service.predict(ASK)).json()
    assert first["probability"] != again["probability"]
    assert [record.output for record in (await service.logged())["a"]] == [first["probability"], again["probability"]]


async def test_the_newest_are_remembered(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """When memory is short the oldest make way: of ten ids that Redis lost, the last has its first answer and the first has not."""
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 3_000)
    async with running(service):
        await service.serving("big_tip", "v1")
        first = {i: (await service.predict(ASK | {"id": f"n{i}", "features": False})).json() for i in range(10)}
        service.store.client.delete(*(f"{service.project.name}.answer:n{i}" for i in first))
        more_trips(service)
        again = {i: (await service.predict(ASK | {"id": f"n{i}", "features": False})).json() for i in (9, 0)}
    assert again[9] == first[9]
    assert again[0]["probability"] != first[0]["probability"]


@asynccontextmanager
async def crashing(service: Service, folder: Path, point: str) -> AsyncIterator[httpx.AsyncClient]:
    """A second inference, as a process of its own on the same servers, project and models, which a request kills at the point."""
    settings, project = service.settings, renamed(folder, service.project.name)
    environment = environment_of(settings.kafka.bootstrap_servers, settings.redis.url, Path(settings.offline.root), project)
    child, port = await started("tests.inference.crashing", environment | {"CRASH_AT": point})
    async with (
        asyncio.timeout(180),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False) as http,
    ):
        while (await http.get("/v2/models/big_tip/ready")).status_code != 200:
            await asyncio.sleep(0.05)
        yield http
        assert await child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_between_the_steps(service: Service, tmp_path: Path, point: str) -> None:
    """Killed before or after keeping, or between logging and answering: the repetition to another process agrees with all that is logged."""
    async with crashing(service, tmp_path, point) as http:
        with pytest.raises(httpx.HTTPError):
            await http.post("/predict/big_tip", json=ASK)
    more_trips(service)
    answer = (await service.predict(ASK)).json()
    repeated = (await service.predict(ASK)).json()
    assert answer == repeated
    records = (await service.logged())["a"]
    assert len(records) == {"before_settle": 2, "after_settle": 2, "after_append": 3}[point]
    assert records == [records[0]] * len(records)
    assert records[0].output == answer["probability"]
    assert (answer["features"]["zones__count_1h"]["value"] == 20.0) == (point != "before_settle")


def test_what_is_kept_is_found_again_or_refused() -> None:
    """Numbers of any size and NaN features survive; bytes that are no kept prediction are named."""
    given: dict[str, Any] = {"n": -(2**63), "x": 0.1, "s": "ü\u0000", "b": True, "none": None}
    record = PredictionRecord("i", "m", "v", 5, 6, [1.5, None], 0.25, "s", given)
    shown = {"f": FeatureShown(float("nan"), "NULL_VALUE", None)}
    made = Made(Instance("i", "s", 5, given, own_id=True), record, encode(record), "value", shown)
    assert made.prediction == PredictionAnswer("i", "m", "v", 5, "value", 0.25, shown)
    kept = msgspec.json.encode(_FirstAnswer(msgspec.Raw(made.value), "value", shown))
    found = _first(made, kept)
    assert isinstance(found, Made)
    assert (found.value, found.record, found.repeated) == (made.value, record, True)
    assert found.prediction == made.prediction._replace(features={"f": FeatureShown(None, "NULL_VALUE", None)})
    for damaged in (b"", kept[:-9], b'["x","y",{}]'):
        with pytest.raises(CorruptState, match="id 'i' cannot be read"):
            _first(made, damaged)
