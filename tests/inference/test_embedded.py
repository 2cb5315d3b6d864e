"""A predictor in an application's process answers and logs as the service does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.demo_state import NOW_MS, demo, trained
from tests.inference.conftest import ENTITIES, Service
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import BadRequest, IdReused, NotDeployed, SettingsError, TidemillError, Unavailable, UnknownModel
from tidemill_inference.embedded import EmbeddedPredictor
from tidemill_inference.messages import PredictionAnswer

DEMO = Path(__file__).parents[1] / "demo_project" / "project.py"


def embedded(service: Service, folder: Path, ready_seconds: float = PATIENCE_SECONDS) -> EmbeddedPredictor:
    """One beside a service: the same project, servers and store."""
    text, count = re.subn(r'PROJECT = "demo"', f'PROJECT = "{service.project.name}"', DEMO.read_text())
    assert count == 1
    (folder / "project.py").write_text(text)
    settings = service.settings
    return EmbeddedPredictor(
        str(folder),
        kafka=settings.kafka.bootstrap_servers,
        redis_url=settings.redis.url,
        offline=settings.offline.root,
        ready_seconds=ready_seconds,
    )


@pytest.mark.integration
async def test_it_answers_and_logs_as_the_service(service: Service, tmp_path: Path) -> None:
    """The same question gets the same answer; the log has both; an id that the service answered keeps its first answer, and the other way round."""
    async with embedded(service, tmp_path) as predictor:
        over_http = (await service.predict({"entities": ENTITIES, "time": NOW_MS, "id": "h1", "subject": "s"})).json()
        answer = await predictor.predict("big_tip", ENTITIES, time=NOW_MS, id="e1", subject="s", features=True)
        assert (answer.output_name, answer.output) == ("probability", over_http["probability"])
        assert answer.features is not None
        assert msgspec.to_builtins(answer.features) == over_http["features"]
        assert (await predictor.predict("big_tip", ENTITIES, time=NOW_MS, id="h1", subject="s")).output == over_http["probability"]
        again = await service.predict({"entities": ENTITIES, "time": NOW_MS, "id": "e1", "subject": "s"})
        assert again.json()["prediction_id"] == "e1"
        logged = await service.logged()
        same = [msgspec.structs.replace(logged[name][0], id="", served=0) for name in ("h1", "e1")]
        assert same[0] == same[1]
        with pytest.raises(IdReused):
            await predictor.predict("big_tip", ENTITIES | {"distance": 9.0}, time=NOW_MS, id="e1", subject="s")


@pytest.mark.integration
async def test_many_and_what_is_wrong(service: Service, tmp_path: Path) -> None:
    """Several at once with an error in the place of a bad one; single ones raise; a new deployment serves without a new predictor."""
    async with embedded(service, tmp_path) as predictor:
        instances: list[dict[str, Any]] = [
            {"entities": ENTITIES, "time": NOW_MS},
            {"entities": {"zone": "north"}},
            {"entities": ENTITIES | {"zone": None}},
        ]
        good, bad, nobody = await predictor.predict_many("big_tip", instances)
        assert isinstance(good, PredictionAnswer)
        assert isinstance(bad, TidemillError)
        assert isinstance(nobody, PredictionAnswer)
        assert nobody.degraded["zones__count_1h"] == "NOT_FOUND"
        for error, model, entities in (
            (BadRequest, "big_tip", {"zone": "north"}), (UnknownModel, "small_tip", ENTITIES), (NotDeployed, "fare", ENTITIES),
        ):  # fmt: skip
            with pytest.raises(error):
                await predictor.predict(model, entities)
        await service.deploy(trained(demo().models["big_tip"], "v2", seed=3))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await predictor.predict("big_tip", ENTITIES)).version != "v2":
                await asyncio.sleep(0.02)


@pytest.mark.integration
async def test_outside_its_block_it_does_not_predict(service: Service, tmp_path: Path) -> None:
    """Before and after; and where servers are away, entering says what is."""
    predictor = embedded(service, tmp_path)
    with pytest.raises(RuntimeError, match="within its block"):
        await predictor.predict("big_tip", ENTITIES)
    async with predictor:
        assert (await predictor.predict("big_tip", ENTITIES)).version == "v1"
    with pytest.raises(Unavailable, match="the predictor has ended"):
        await predictor.predict("big_tip", ENTITIES)
    settings = service.settings
    away = EmbeddedPredictor(
        str(tmp_path),
        kafka=settings.kafka.bootstrap_servers,
        redis_url="redis://127.0.0.1:1/0",
        offline=settings.offline.root,
        ready_seconds=1,
    )
    with pytest.raises(Unavailable, match=r"not ready after 1 s: .*redis: .*; see that the servers answer"):
        async with away:
            pass


async def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither given nor set is named."""
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        EmbeddedPredictor("anywhere", redis_url="redis://localhost", offline="store")
