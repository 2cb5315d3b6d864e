"""A model of three classes on real Kafka, Valkey and services: published, trained, asked, joined with what became of it, replayed, verified."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.ask import get as ask
from tests.ask import post
from tests.cli.living import PATIENCE_SECONDS, Living

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.local.services import choose
from tidemill.local.stack import External, Stack
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import result_of_row
from tidemill.proof.replay import logged
from tidemill.proof.verified_results import ResultsVerify
from tidemill.records import ResultRecord
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.topics import topic_specs

pytestmark = pytest.mark.integration
CLASSES = ["on time", "late", "cancelled"]
SERVICES = ("ingestion", "features", "offline", "inference", "predlog")
PROJECT = """
from tidemill import Event, FeatureView, Model, Outcome, Request, count

PROJECT = "{name}"
asked = Event("{name}.asked", {{"ride": str, "at": int, "zone": str, "wind": float}}, "at", id="ride", partitions=1)
ended = Event("{name}.ended", {{"ride": str, "at": int, "zone": str, "how": str | None}}, "at", partitions=1)
zones = FeatureView("zones", ended, "zone", [count()], windows=["1d"], partitions=1)

def pipeline():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), LogisticRegression())

outcome = Outcome(ended, "how", "ride", within="1h", classes=["on time", "late", "cancelled"])
how = Model("how", asked, "at", "ride", [zones, Request("wind")], outcome, pipeline)
"""


class Rides(Living):
    """Rides, asked about by their wind, and how they ended."""

    def __init__(self, folder: Path, name: str, servers: tuple[str, str]) -> None:
        super().__init__(folder, "rides", PROJECT.format(name=name), "zone", "ab")
        self.name, self._draw = name, random.Random(3)
        external = External(*servers, str(self.home / "offline"))
        environment = {"TIDEMILL_FLUSH_SECONDS": "0.5", "PYTHONPATH": self.environment["PYTHONPATH"]}

        def prepare(stack: Stack) -> None:
            specs = topic_specs(load_project(self.project))
            asyncio.run(ensure_topics(KafkaSettings(bootstrap_servers=stack.kafka), specs))

        self.stack = Stack(
            self.home, str(self.project), choose(SERVICES), external=external, environment=environment, prepare=prepare,
            timeout_seconds=PATIENCE_SECONDS,
        )  # fmt: skip

    def rides(self, count: int, prefix: str) -> list[dict[str, Any]]:
        """Rides whose end mostly follows the wind."""
        made = []
        for i in range(count):
            place = self._draw.randrange(3) if i > 2 else i
            made.append({"ride": f"{prefix}{i}", "zone": "ab"[i % 2], "wind": place + self._draw.gauss(0, 0.3), "how": CLASSES[place]})
        return made

    def tell(self, kind: str, rides: list[dict[str, Any]], *fields: str) -> None:
        """Publish an event of each ride."""
        body = [
            {"type": f"{self.name}.{kind}", "data": {name: ride[name] for name in ("ride", "zone", *fields)} | {"at": now_ms()}}
            for ride in rides
        ]
        answer = post(f"{self.stack.urls['ingestion']}/events", json=body, timeout=180)
        assert not answer.is_error, answer.text

    def soon(self, found: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not found():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def results(self) -> list[ResultRecord]:
        """Those in the offline store."""
        snapshot = OfflineStore(self.stack.offline).find("results")
        return [] if snapshot is None else [result_of_row(row) for row in snapshot.scan().to_pylist()]


def test_three_classes(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """From the events to verified results: the classes are those declared, all probabilities are logged and computed again bit for bit, an end
    that was never declared is a result and no example."""
    rides = Rides(tmp_path, topic_prefix, (kafka, redis_url))
    with rides.stack:
        history = rides.rides(200, "h")
        rides.tell("ended", rides.rides(2, "before"), "how")  # so that the zones are known
        time.sleep(0.01)
        rides.tell("asked", history, "wind")
        time.sleep(0.01)
        rides.tell(
            "ended", [*history[:-2], *({**ride, "how": end} for ride, end in zip(history[-2:], ("diverted", None), strict=True))], "how"
        )
        said = rides.run("train", "how")
        assert "1 examples are left out: their outcome is none of the declared classes, such as: diverted" in said
        assert "how" in said
        assert "accuracy 0." in said
        set_file = tmp_path / "set.parquet"
        rides.run("train-set", "how", "--out", str(set_file))
        assert Counter(pq.read_table(set_file)["label"].to_pylist()) == Counter(ride["how"] for ride in history[:-2])
        assert "0 differ" in rides.run("verify", "--training-set", str(set_file), "--model", "how")
        rides.soon(lambda: not ask(f"{rides.stack.urls['inference']}/v2/models/how/ready").is_error)

        asked = rides.rides(30, "q")
        answers = [_predict(rides, ride) for ride in asked]
        assert all(list(answer["probabilities"]) == CLASSES for answer in answers)
        assert all(answer["probabilities"][answer["class"]] == max(answer["probabilities"].values()) for answer in answers)
        assert sum(answer["class"] == ride["how"] for answer, ride in zip(answers, asked, strict=True)) > 20
        assert _predict(rides, asked[0])["probabilities"] == answers[0]["probabilities"]
        matrix, column = _by_tensor(rides, [[4.0, 0.1], [4.0, 2.1]])
        assert np.array(matrix).shape == (6,)
        assert column == ["on time", "cancelled"]

        rides.tell("ended", [*asked[:-1], {**asked[-1], "how": "diverted"}], "how")
        rides.soon(lambda: len(rides.results()) >= len(asked))
        results = {result.subject: result for result in rides.results()}
        assert {ride: result.outcome for ride, result in results.items()} == {ride["ride"]: ride["how"] for ride in asked[:-1]} | {
            asked[-1]["ride"]: "diverted"
        }
        assert [results[ride["ride"]].probabilities for ride in asked] == [answer["probabilities"] for answer in answers]
        rides.soon(lambda: len(logged(OfflineStore(rides.stack.offline))) >= len(asked) + 2)
        assert re.search(r"\b(3[2-9]) predictions recomputed, \1 equal bit for bit", rides.run("replay"))  # more if one was asked again
        _verified(rides)
        _scored_and_made_again(rides, asked, answers)


def _scored_and_made_again(rides: Rides, asked: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
    """A table of the same requests is answered with the same probabilities; one answer is explained; the version is made again."""
    times = {answer.id: answer.time for answer in logged(OfflineStore(rides.stack.offline))}
    table = rides.folder / "asked.jsonl"
    rows = [{name: ride[name] for name in ("ride", "zone", "wind")} | {"time": times[ride["ride"]]} for ride in asked]
    table.write_text("\n".join(map(json.dumps, rows)))
    rides.run("score", "how", str(table), "--out", str(rides.folder / "scored.jsonl"))
    scored = [json.loads(line) for line in (rides.folder / "scored.jsonl").read_text().splitlines()]
    assert [(row["class"], json.loads(row["probabilities"])) for row in scored] == [(one["class"], one["probabilities"]) for one in answers]
    explained = json.loads(rides.run("why", asked[0]["ride"], "--json"))["explanation"]
    assert (explained["method"], explained["class"]) == ("sampled", answers[0]["class"])
    assert "the same ONNX file; " in (again := rides.run("reproduce", f"how@{answers[0]['version']}"))
    assert "all are equal bit for bit" in again


def _predict(rides: Rides, ride: dict[str, Any]) -> dict[str, Any]:
    body = {"id": ride["ride"], "subject": ride["ride"], "entities": {"zone": ride["zone"], "wind": ride["wind"]}}
    answer = post(f"{rides.stack.urls['inference']}/predict/how", json=body, timeout=180)
    assert not answer.is_error, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _by_tensor(rides: Rides, rows: list[list[float]]) -> tuple[list[float], list[str]]:
    """The probabilities, flat, and the classes, by the Open Inference Protocol, whose metadata name the columns."""
    url = f"{rides.stack.urls['inference']}/v2/models/how"
    told = ask(url).json()
    assert json.loads(told["properties"]["classes"]) == CLASSES
    assert [(one["datatype"], one["shape"]) for one in told["outputs"]] == [("FP32", [-1, 3]), ("BYTES", [-1, 1])]
    tensor = {"name": told["inputs"][0]["name"], "shape": [len(rows), 2], "datatype": "FP32", "data": rows}
    outputs = {one["name"]: one["data"] for one in post(f"{url}/infer", json={"inputs": [tensor]}).json()["outputs"]}
    return outputs["probabilities"], outputs["class"]


def _verified(rides: Rides) -> None:
    """SQL over the archive gives the outcome of every result."""
    model = load_project(rides.project).models["how"]
    checks = ResultsVerify(model, OfflineStore(rides.stack.offline), 0, PATIENCE_SECONDS)
    rows = checks.draw(100, random.Random(1))
    found = checks.look(rows, {}).compared
    assert found.values == len(rows) == 30
    assert not found.examples
