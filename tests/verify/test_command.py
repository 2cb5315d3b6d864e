"""`tidemill verify` on a real Delta store and a service that answers over HTTP what a world serves."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tests.verify.archive import Raw, archived
from typer.testing import CliRunner

import tidemill as tm
from tidemill.archive.columns import event_folder, table_schema
from tidemill.catalogue.definitions import Definitions
from tidemill.cli import app, verify
from tidemill.cli.target import Target
from tidemill.declarations import Event, FeatureView, Model, Outcome
from tidemill.errors import TidemillError
from tidemill.models.artifact import Manifest, ModelInput, Parity, save_artifact
from tidemill.offline.store import OfflineStore
from tidemill.offline.tables import predictions_table
from tidemill.records import PredictionRecord, StampEntry, encode
from tidemill.streams import catalogue_log
from tidemill.testing import World
from tidemill.testing.log import TopicRecord
from tidemill.training.dataset import TrainingSet
from tidemill.verify import compare
from tidemill.verify.files import training_file

PROJECT = """
from sklearn.linear_model import LogisticRegression
import tidemill as tm

sold = tm.Event("sold", {"at": int, "shop": str, "x": float | None}, time="at")
asked = tm.Event("asked", {"at": int, "who": str, "shop": str}, time="at")
shops = tm.FeatureView("shops", sold, "shop", [tm.count(), tm.mean("x"), tm.last_k("x", 2)], windows=["1h"])
leaving = tm.Model("leaving", asked, "at", "who", [shops.select("count_1h")], tm.Outcome(asked, "at > 0", "who"), LogisticRegression)
"""
T0 = 1_700_000_000_000
Change = Callable[[dict[str, Any]], None]


def no_change(answer: dict[str, Any]) -> None:
    """Answers as they are."""


@contextmanager
def serving(world: World, change: Change) -> Iterator[str]:
    """A server on a port of its own."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            names, shops = [name.partition(":")[2] for name in asked["features"]], asked["entities"]["shop"]
            served = [world.features("shops", shop, at=asked["as_of"]) for shop in shops]
            results = [{"values": [one[name].value for one in served], "statuses": [one[name].status for one in served]} for name in names]
            answer = {"metadata": {"feature_names": ["shop", *names]}, "results": [{"values": shops}, *results]}
            change(answer)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Writes nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def no_history(*_: object) -> list[Definitions]:
    """A catalogue without a record."""
    return []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A project with events in a world and in a Delta table, and the environment that names them."""
    (tmp_path / "project.py").write_text(PROJECT)
    world = World.load(tmp_path)
    store = OfflineStore(tmp_path / "offline")
    rows: dict[str, list[Raw]] = {"sold": [], "asked": []}
    for offset in range(6):
        time_ms = T0 + offset * 60_000
        data = {"at": time_ms, "shop": f"s{offset % 2}", "x": float(offset)}
        world.publish("sold", data, at=time_ms)
        rows["sold"].append(Raw("sold", 0, offset, time_ms, time_ms, None, data))
        rows["asked"].append(Raw("asked", 0, offset, time_ms, time_ms, None, {"at": time_ms, "who": "w", "shop": "s0"}))
    for name, raws in rows.items():
        event = world.project.events[name]
        table = store.counted_table(event_folder(name), table_schema(event))
        table.open()
        table.append(archived(event, raws), {f"{name}-0": (0, 6)})
    monkeypatch.setattr(compare, "SETTLED_MS", 0)
    monkeypatch.setattr(Target, "project", lambda at: at.declared)  # no Kafka runs here to ask for a catalogue
    monkeypatch.setattr(catalogue_log, "read_history", no_history)
    monkeypatch.setattr(verify, "now_ms", lambda: T0 + 600_000)
    for name, value in {
        "TIDEMILL_PROJECT": str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS": "-", "REDIS_URL": "-", "TIDEMILL_OFFLINE": str(tmp_path / "offline")
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return world


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    result = CliRunner().invoke(app, ["verify", *arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_served_values_are_those_of_sql(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0, and how many were compared."""
    with serving(world, no_change) as url:
        monkeypatch.setenv("TIDEMILL_SERVING_URL", url)
        code, output = run("--sample", "8")
    assert (code, "6 values compared, 0 differ" in output) == (0, True), output


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_what_begins(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, terminal: bool) -> None:
    """View by view, beside standard output; a file gets nothing of it."""
    told = io.StringIO()
    monkeypatch.setattr(verify, "errors", Console(file=told, force_terminal=terminal, width=200))
    rows = pa.table({"subject": ["w"], "time": [T0], "label": [1.0], "shops__count_1h": [1.0]})
    pq.write_table(rows, tmp_path / "set.parquet")
    with serving(world, no_change) as url:
        monkeypatch.setenv("TIDEMILL_SERVING_URL", url)
        for options in ([], ["--training-set", str(tmp_path / "set.parquet"), "--model", "leaving"]):
            assert "reads its archived events" not in run(*options)[1]
            assert ("shops: reads its archived events" in told.getvalue()) == terminal
    assert ("leaving: compares sampled rows" in told.getvalue()) == terminal
    assert bool(told.getvalue()) == terminal


def test_a_served_value_that_differs_is_shown_with_its_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, the value beside that of SQL, and what went in."""

    def change(answer: dict[str, Any]) -> None:
        answer["results"][1]["values"] = [None if value is None else value + 1 for value in answer["results"][1]["values"]]

    with serving(world, change) as url:
        monkeypatch.setenv("TIDEMILL_SERVING_URL", url)
        code, output = run("--view", "shops", "--seed", "3")
    assert code == 1
    assert "served: shops: shops of s0 at 2023-11-14T22:23:20Z: count_1h is 4.0, by SQL 3.0" in output
    assert "known 2023-11-14T22:17:20Z, time 2023-11-14T22:17:20Z, id -: x 4.0" in output


def test_a_training_set_is_compared(world: World, tmp_path: Path) -> None:
    """Its rows, labels and features, and the questions that it should have."""
    times = [T0 + offset * 60_000 for offset in range(5)]  # the last question has no answer yet: nobody asked after it
    counts = [float(1 + offset // 2) for offset in range(5)]
    rows = pa.table({"subject": ["w"] * 5, "time": times, "label": [1.0] * 5, "shops__count_1h": counts})
    pq.write_table(rows, tmp_path / "right.parquet")
    pq.write_table(rows.slice(1), tmp_path / "short.parquet")
    assert run("--training-set", str(tmp_path / "right.parquet"), "--model", "leaving")[0] == 0
    code, output = run("--training-set", str(tmp_path / "short.parquet"), "--model", "leaving")
    assert (code, "'no row', by SQL 1.0" in output) == (1, True), output


def test_a_training_set_in_csv_is_compared(world: World, tmp_path: Path) -> None:
    """As `train-set` writes it: texts that look like numbers or like nothing are subjects, and a feature may have no value at all."""
    times = np.array([T0 + offset * 60_000 + 1 for offset in range(3)])
    inputs = [ModelInput("shops__count_1h", "feature")]
    for subjects, counts, code, told in (
        (["w"] * 3, [1.0, 1.0, 2.0], 1, "w at 2023-11-14T22:13:20.001Z"),
        (["007", "NA", ""], [np.nan] * 3, 1, "007 at 2023-11-14T22:13:20.001Z"),
    ):
        TrainingSet(np.array([counts]).T, np.ones(3), times, subjects, inputs).write(tmp_path / "set.csv")
        found, output = run("--training-set", str(tmp_path / "set.csv"), "--model", "leaving")
        assert (found, told in output) == (code, True), output
    TrainingSet(np.array([[1.0, 1.0, 2.0, 2.0, 3.0]]).T, np.ones(5), T0 + 60_000 * np.arange(5), ["w"] * 5, inputs).write(
        tmp_path / "set.csv"
    )
    code, output = run("--training-set", str(tmp_path / "set.csv"), "--model", "leaving")
    assert (code, "15 values compared, 0 differ" in output) == (0, True), output


def test_a_set_in_csv_has_the_types_of_its_features(tmp_path: Path) -> None:
    """Texts stay what they are, also those that look like numbers or like nothing; both files have the same rows."""
    shops = FeatureView("shops", Event("sold", {"at": int, "shop": str, "kind": str}, "at"), "shop", [tm.last("kind"), tm.count()])
    asked = Event("asked", {"at": int, "who": str, "shop": str}, "at")
    model = Model("m", asked, "at", "who", [shops], Outcome(asked, "at > 0", "who"), list)
    inputs = [ModelInput("shops__last_kind", "text", ["", "007", "NA"]), ModelInput("shops__count", "feature")]
    values = np.array([[2.0, 1.0], [1.0, np.nan], [0.0, 2.0], [np.nan, 3.0]])
    made, tables = TrainingSet(values, np.ones(4), T0 + np.arange(4), ["1", "NA", "", "w"], inputs), []
    for name in ("set.csv", "set.parquet"):
        made.write(tmp_path / name)
        tables.append(training_file(tmp_path / name, model))
    assert tables[0].to_pylist() == tables[1].to_pylist()
    assert tables[0]["shops__last_kind"].to_pylist() == ["NA", "007", "", None]
    named = replace(model, outcome=Outcome(asked, "shop", "who"))
    classes = replace(made, labels=np.array([0.0, 1.0, 2.0, 0.0]), texts=("007", "NA", ""))
    for name in ("set.csv", "set.parquet"):
        classes.write(tmp_path / name)
        assert training_file(tmp_path / name, named)["label"].to_pylist() == ["007", "NA", "", "007"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("set.parquet", "subject,time,label\n", "Parquet magic bytes"),
        ("set.csv", "", "Empty CSV file"),
        ("set.csv", "subject,time,label\nw,yesterday,1\n", "yesterday"),
        ("set.csv", "subject,time,label\nw,,1\n", "time is null in 1 rows"),
        ("set.csv", "who,time,label\nw,2023-11-14 22:13:20Z,1\n", "has no column 'subject'"),
        ("set.json", None, "is not there"),
    ],
)
def test_another_file_is_told(world: World, tmp_path: Path, name: str, content: str | None, told: str) -> None:
    """With what to give instead, and without a traceback."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(TidemillError) as error:
        run("--training-set", str(tmp_path / name), "--model", "leaving")
    assert told in error.value.message
    assert "train-set` wrote" in (error.value.mend or "")


def test_inputs_of_logged_predictions_are_compared(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the names of the inputs that the version's manifest has; a prediction whose version is gone is left out."""
    inputs, onnx = [ModelInput("shops__count_1h", "feature")], b"onnx"
    manifest = Manifest(
        model="leaving", version="v1", created=0, inputs=inputs, output="probability", definitions={}, trained_from=0, trained_until=0,
        rows=0, metrics={}, parity=Parity(0.0, 0, 0.0), reference={}, onnx_sha256=hashlib.sha256(onnx).hexdigest(),
    )  # fmt: skip
    save_artifact(str(tmp_path / "offline"), manifest, onnx)
    table = predictions_table(world.project)
    log = OfflineStore(tmp_path / "offline").topic_table(table)
    log.open()
    at_ms = T0 + 600_000
    stamp = [StampEntry(world.project.views["shops"].log, 0, 1)]
    records: list[TopicRecord] = []
    for id, version, count in (("p1", "v1", 3.0), ("p2", "v1", 4.0), ("p3", "gone", 5.0)):
        record = PredictionRecord(id, "leaving", version, at_ms, at_ms, [count], 0.5, entities={"shop": "s0"}, stamp=stamp)
        records.append(TopicRecord("predictions", 0, len(records), id.encode(), encode(record)))
    log.append(table.rows_of({0: records}), {(table.topic, 0): (0, 3)})
    with serving(world, no_change) as url:
        monkeypatch.setenv("TIDEMILL_SERVING_URL", url)
        code, output = run()
    assert code == 1
    assert "8 values compared, 1 differ" in output
    assert "logged: leaving, shops: prediction p2: count_1h is 4.0, by SQL 3.0" in output
