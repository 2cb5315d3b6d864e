"""Shadows are asked what was answered, after the answer: on a log of their own, exactly, and never at the cost of a caller."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
from tests.demo_state import NOW_MS, demo
from tests.inference.conftest import ENTITIES, Service
from tests.inference.test_roles import ask, deployed
from tests.offline.lake import numbered
from tests.patience import PATIENCE_SECONDS

from tidemill.errors import KafkaUnavailable
from tidemill.models.engine import Engine
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import shadows_table
from tidemill.proof.replay import logged
from tidemill.records import PredictionRecord, encode
from tidemill.streams.topics import shadows_topic
from tidemill_inference import shadows as module
from tidemill_inference.prediction_log import PredictionLog

pytestmark = pytest.mark.integration


async def counted(service: Service, metric: str) -> float:
    """A counter of the service, over all labels."""
    text = (await service.http.get("/metrics")).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"tidemill_inference_{metric}{{"))


async def reached(service: Service, metric: str, value: float) -> None:
    """Wait until a counter has grown so far."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await counted(service, metric) < value:
            await asyncio.sleep(0.02)


def same(one: PredictionRecord, other: PredictionRecord) -> bool:
    """Whether two records are of the same request and saw the same."""
    names = ["id", "model", "time", "inputs", "subject", "entities", "stamp"]
    return [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


async def test_each_answer_once(service: Service) -> None:
    """Single, batched and repeated requests: each shadow has each prediction once, of the same inputs and fences, with its own output."""
    await deployed(service, "v2", ("v3", "shadow", 0.0), ("v4", "shadow", 0.0))
    before = await counted(service, "shadows_total")
    singles = [(await service.predict(ask(f"zone-{i}", subject=f"s{i}"))).json()["prediction_id"] for i in range(10)]
    one = {"entities": ENTITIES, "time": NOW_MS}
    batch = [{**one, "id": "own"}, {**one, "entities": {"zone": "north"}}, one]
    answers = (await service.predict({"instances": batch})).json()["predictions"]
    for _ in range(3):
        assert (await service.predict({**one, "id": "own"})).json() == answers[0]
    ids = [*singles, answers[0]["prediction_id"], answers[2]["prediction_id"]]
    await reached(service, "shadows_total", before + 2 * len(ids))
    live, shadows = await service.logged(), await service.logged(shadows_topic)
    assert sorted(shadows) == sorted(ids)
    assert {record.version for records in live.values() for record in records} == {"v2"}
    for prediction_id, records in shadows.items():
        assert sorted(record.version for record in records) == ["v3", "v4"]
        for record in records:
            assert same(record, live[prediction_id][0])
            assert record.output != live[prediction_id][0].output
    assert await counted(service, "shadows_total") == before + 2 * len(ids)


async def test_each_version_of_each_prediction_is_read_once(service: Service, tmp_path: Path) -> None:
    """Rows of shadows have the ids of predictions, so version and id together tell one from the other; a record that stands twice counts once."""
    await deployed(service, "v2", ("v3", "shadow", 0.0), ("v4", "shadow", 0.0))
    before = await counted(service, "shadows_total")
    for i in range(5):
        await service.predict(ask(f"zone-{i}"))
    await reached(service, "shadows_total", before + 10)
    records = [record for records in (await service.logged(shadows_topic)).values() for record in records]
    store, table = OfflineStore(tmp_path), shadows_table(service.project)
    log = store.topic_table(table)
    log.open()
    rows = [(record.id.encode(), encode(record)) for record in records]
    log.append(table.rows(0, numbered([*rows, *rows])), {(table.topic, 0): (0, 2 * len(rows))})
    assert sorted(logged(store, shadows=True), key=encode) == sorted(records, key=encode)
    assert {one.id for one in logged(store, sample=2, shadows=True)} < {one.id for one in records}


async def test_a_shadow_that_fails_is_left_out(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that raises, or gives no number, costs itself alone: callers get their answers, and what was left out is counted."""
    await deployed(service, "v2", ("v3", "shadow", 0.0), ("v4", "shadow", 0.0))
    predict, wrong = Engine.predict, iter((RuntimeError("broken"), math.nan))

    def fails(self: Engine, vector: Any, contents: Any = ()) -> float:
        if "v3" not in self.label:
            return predict(self, vector, contents)
        outcome = next(wrong)
        if isinstance(outcome, RuntimeError):
            raise outcome
        return float(outcome)

    monkeypatch.setattr(Engine, "predict", fails)
    made, gone = await counted(service, "shadows_total"), await counted(service, "shadows_left_out_total")
    for i in range(2):
        assert (await service.predict(ask(f"zone-{i}"))).json()["version"] == "v2"
    await reached(service, "shadows_total", made + 2)
    await reached(service, "shadows_left_out_total", gone + 2)


async def test_without_room_or_without_a_log(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many wait, or their log is away, shadows are left out; no caller notices."""
    await deployed(service, "v2", ("v3", "shadow", 0.0))
    gone = await counted(service, "shadows_left_out_total")
    with monkeypatch.context() as patch:
        patch.setattr(module, "MOST", 0)
        assert (await service.predict(ask("north"))).status_code == 200
    assert await counted(service, "shadows_left_out_total") == gone + 1
    append = PredictionLog.append

    async def away(self: PredictionLog, entries: Any) -> None:
        if self._topic == shadows_topic(service.project.name):
            raise KafkaUnavailable("no broker answers", mend="start Kafka")
        await append(self, entries)

    monkeypatch.setattr(PredictionLog, "append", away)
    assert (await service.predict(ask("south"))).status_code == 200
    await reached(service, "shadows_left_out_total", gone + 2)


def test_the_table_of_shadows_is_that_of_predictions() -> None:
    """The same columns, of another topic."""
    table = shadows_table(demo())
    assert (table.name, table.topic, table.partitions) == ("shadows", "demo.shadows", 4)
