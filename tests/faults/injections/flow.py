"""Events and questions for a system on `tests/demo_project`, repeated until they are taken, and what its logs must hold afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections import Counter
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec
from tests.demo_state import demo, saved, trained, trip
from tests.faults.injections import models
from tests.faults.injections.ground import Ground
from tests.faults.injections.injection import until

from tidemill.clock import now_ms
from tidemill.offline_store import OfflineStore
from tidemill.proof.audit import audit
from tidemill.redis_link import RedisLink
from tidemill.settings import KafkaSettings
from tidemill.topics import deployments_topic

VIEW = demo().views["zones"]
MODEL = "big_tip"


class Flow:
    """Two threads: one publishes events over HTTP, the other asks for predictions. `published` events, `answered` predictions by id."""

    def __init__(self, rig: Ground) -> None:
        self.published = 0
        self.answered: dict[str, float] = {}
        self._rig = rig
        self._ended = False
        self._threads = [threading.Thread(target=self._publish), threading.Thread(target=self._ask)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        for thread in self._threads:
            thread.join()

    def _insist(self, url: str, body: Any) -> httpx.Response:
        """Repeat a request until it is taken."""
        with httpx.Client(trust_env=False, timeout=5) as http:
            while True:
                try:
                    answer = http.post(url, content=msgspec.json.encode(body), headers={"content-type": "application/json"})
                except httpx.HTTPError:
                    time.sleep(0.1)
                    continue
                if answer.status_code < 500:
                    assert answer.is_success, answer.text
                    return answer
                time.sleep(0.1)

    def _publish(self) -> None:
        while not self._ended:
            first = self.published
            events = [{"type": "trips", "data": trip(now_ms(), f"z{i % 7}", float(i), float(i), id=f"e{first + i}")} for i in range(20)]
            self._insist(f"{self._rig.stack.urls['ingestion']}/events", events)
            self.published += len(events)
            time.sleep(0.02)

    def _ask(self) -> None:
        while not self._ended:
            id_ = uuid.uuid4().hex
            entities = {"zone": "z1", "driver_id": 1, "distance": 2.5, "payment": "cash", "member": True}
            body = {"entities": entities, "time": now_ms(), "id": id_, "subject": f"e{self.published}"}
            answer = self._insist(f"{self._rig.stack.urls['inference']}/predict/{MODEL}", body).json()
            self.answered[id_] = answer["probability"]
            time.sleep(0.02)

    def check(self) -> None:
        """Once all has arrived: tables dense, every event in its view, every answer in the log, once and as it was given."""
        store = OfflineStore(self._rig.stack.offline)
        until(lambda: len(self._events(store)) == self.published, f"{self.published} events are in their view", 120)
        until(lambda: self.answered.keys() <= self._logged(store).keys(), "every answered prediction is in the log", 120)
        for table in (f"views/{VIEW.log}", "predictions"):
            rows = store.scan(table, ["partition", "offset"]).to_pylist()
            for partition in {row["partition"] for row in rows}:
                offsets = [row["offset"] for row in rows if row["partition"] == partition]
                assert offsets == list(range(len(offsets))), table
        assert {id_: self._logged(store)[id_] for id_ in self.answered} == self.answered
        until(lambda: len(store.scan("results", ["seq"])) > 0, "predictions are joined with their outcomes")
        results = store.scan("results", ["seq", "prediction"]).to_pylist()
        assert [row["seq"] for row in results] == list(range(len(results)))
        assert max(Counter(row["prediction"] for row in results).values(), default=1) == 1
        assert self._audited() == []

    def _audited(self) -> list[object]:
        async def run() -> list[object]:
            async with RedisLink(self._rig.redis_url, timeout_seconds=10) as link:
                return list((await audit(demo(), OfflineStore(self._rig.stack.offline), link, wait_seconds=30)).examples)

        return asyncio.run(run())

    def _events(self, store: OfflineStore) -> set[str]:
        return set(store.scan(f"views/{VIEW.log}", ["id"])["id"].to_pylist())

    def _logged(self, store: OfflineStore) -> dict[str, float]:
        return {row["id"]: row["output"] for row in store.predictions(["id", "output"]).to_pylist()}


def deploy(rig: Ground) -> None:
    """A model, trained on random rows, that serves when this returns."""
    record = saved(rig.stack.offline, trained(demo().models[MODEL]))
    asyncio.run(models.deploy(KafkaSettings(bootstrap_servers=rig.stack.kafka), deployments_topic(demo().name), record))
    url = f"{rig.stack.urls['inference']}/v2/models/{MODEL}/ready"
    until(lambda: httpx.get(url, trust_env=False).is_success, "the model serves", 300)
