"""The commands against the whole running system, in the order in which a user meets them."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import redis
from tests.ask import get as ask
from tests.ask import post
from tests.offline.lake import ROOT
from tests.patience import PATIENCE_SECONDS
from tests.training.files import Perceptron

from tidemill.declarations.project import load_project
from tidemill.local.stack import Stack
from tidemill.names import log_name
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import hash_tag
from tidemill.proof.replay import logged

pytestmark = pytest.mark.integration
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]


class Shell:
    """A terminal in which the stack runs."""

    def __init__(self, live: Stack) -> None:
        self.live = live
        assert live.home is not None
        self.environment = {
            **os.environ, "TIDEMILL_HOME": str(live.home), "COLUMNS": "120", "PYTHONPATH": f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}",
        }  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints, when it ends with this code."""
        result = subprocess.run([*TIDEMILL, *arguments], env=self.environment, capture_output=True, text=True, timeout=180, check=False)
        output = result.stdout + result.stderr
        assert result.returncode == code, output
        assert "Traceback" not in output
        return output


@pytest.fixture(scope="module")
def shell(live: Stack) -> Shell:
    """A terminal, with twelve hours of history played, and a model trained and deployed."""
    made = Shell(live)
    history = made.run("replay-stream", "--end", "2026-01-01T12:00", "--speed", "max", "--step", "3h", "--no-predict")
    assert "2026-01-01 12:00" in history
    assert "\ndeployed\n" in made.run("train", "big_tip", "--until", "2026-01-01T12:00")
    deadline = time.monotonic() + 180
    while ask(f"{live.urls['inference']}/v2/models/big_tip/ready").is_error:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return made


def test_before_a_model_there_is_nothing_to_ask(live: Stack) -> None:
    """Playing with predictions before a training says what to do first."""
    output = Shell(live).run("replay-stream", "--end", "2026-01-01T01:00", "--speed", "max", code=1)
    assert "inference answered 404" in output
    assert "train and deploy the model first" in output


def test_a_training_set_as_a_file(shell: Shell, tmp_path: Path) -> None:
    """It has named columns, and SQL over the archive says the same of its labels and features."""
    path, until = tmp_path / "set.parquet", ["--until", "2026-01-01T12:00"]
    written = shell.run("train-set", "big_tip", "--out", str(path), *until)
    table = pq.read_table(path)
    assert f"{len(table):,} rows of {table.num_columns - 3} inputs" in written
    assert table.column_names[:3] == ["subject", "time", "label"]
    output = shell.run("verify", "--training-set", str(path), "--model", "big_tip", *until)
    assert re.search(r"[1-9][\d,]* values compared, 0 differ", output)


def test_play_predict_and_prove(shell: Shell, live: Stack) -> None:
    """An hour is played with predictions; the audit finds no difference, and every prediction is recomputed."""
    played = shell.run("replay-stream", "--start", "2026-01-01T12:00", "--end", "2026-01-01T13:00", "--speed", "max")
    row = re.search(r"2026-01-01 13:00 +│ +(\d+) +│ +(\d+) +│ +\d+ ms", played)
    assert row is not None, played
    assert int(row[1]) > 80
    assert int(row[2]) > 20
    audit = shell.run("audit")
    assert re.search(r"[1-9][\d,]* values compared, 0 differ", audit)
    assert "zones: 3 entities" in audit
    predictions = wait_logged(live, int(row[2]))
    assert f"{len(predictions)} predictions recomputed, {len(predictions)} equal bit for bit" in shell.run("replay", "--sample", "1000")
    assert "2 predictions recomputed, 2 equal bit for bit" in shell.run("replay", *predictions[:2])
    assert "unknown prediction 'p0'" in shell.run("replay", predictions[0], "p0", code=1)


def wait_logged(live: Stack, count: int) -> list[str]:
    """The ids of all predictions, once so many are in the offline store."""
    deadline = time.monotonic() + 180
    while len(found := logged(OfflineStore(live.offline))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return [prediction.id for prediction in found]


def test_a_table_is_scored_as_inference_answered(shell: Shell, live: Stack, tmp_path: Path) -> None:
    """Every prediction that the live service logged is the answer to its row, to the bit, by the champion and by name; bad rows are told."""
    answers = logged(OfflineStore(live.offline))
    rows = [{**answer.entities, "time": answer.time, "id": answer.id} for answer in answers]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, [*rows, rows[0] | {"distance": "far"}])))
    for model in ("big_tip", f"big_tip@{answers[0].version}"):
        told = shell.run("score", model, str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.parquet"))
        assert f"{len(rows) + 1:,} rows by big_tip@{answers[0].version}, 1 refused" in told
        assert re.search(r"from all events published up to 20\d\d-", told)
        assert f"in.jsonl:{len(rows) + 1}: entities.distance: 'far' is not a number" in told
        scored = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert len(rows) > 20
        assert [(row["id"], row["probability"]) for row in scored[:-1]] == [(answer.id, answer.output) for answer in answers]
    refused = shell.run(
        "score", "big_tip", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "none.csv"), "--strict", "--no-wait", code=1
    )
    assert "nothing was written: 1 rows are refused" in refused
    assert not (tmp_path / "none.csv").exists()
    assert "unknown model 'small'" in shell.run("score", "small", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "o.csv"), code=1)


def test_why_a_prediction_came_out_so(shell: Shell, live: Stack, tmp_path: Path) -> None:
    """A logged prediction is explained by its id as inference explains it when asked; as a table, as JSON, and as a picture."""
    body = {"entities": {"zone": "a", "driver": 3, "distance": 0.5}, "time": "2026-01-01T13:00:00Z", "id": "why-1", "explain": True}
    answer = post(f"{live.urls['inference']}/predict/big_tip", json=body).json()
    deadline = time.monotonic() + 180
    while not logged(OfflineStore(live.offline), ["why-1"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    shown = msgspec.json.decode(shell.run("why", "why-1", "--json"))
    assert shown["explanation"] == answer["explanation"]
    assert shown["explanation"]["method"] == "additive"
    assert shown["probability"] == answer["probability"]
    told = shell.run("why", "why-1", "--most", "3", "--html", str(tmp_path / "why.html"))
    assert f"prediction why-1 of big_tip@{answer['version']} at 2026-01-01T13:00:00Z" in told
    assert next(iter(answer["explanation"]["contributions"])) in told
    assert "<svg" in (tmp_path / "why.html").read_text()
    assert "unknown prediction 'p0'" in shell.run("why", "p0", code=1)
    assert re.search(r"zones__mean_tip_1h +│ feature +│ 0\.\d+", shell.run("models", "show", f"big_tip@{answer['version']}"))


def test_a_version_is_reproduced(shell: Shell) -> None:
    """The version that serves is made again from the archive, bit for bit; a name that is none says what to write."""
    (champion,) = re.findall(r"big_tip\s*│ (\S+)\s*│ champion", shell.run("models", "list", "big_tip"))
    told = shell.run("reproduce", f"big_tip@{champion}")
    assert f"big_tip@{champion}: the archive gives the same training set; the same ONNX file; " in told
    assert "answers compared, all are equal bit for bit" in told
    assert "not as it was" not in told
    assert "write MODEL@VERSION" in shell.run("reproduce", "big_tip", code=1)


def test_the_card_of_a_version(shell: Shell, tmp_path: Path) -> None:
    """As JSON with the role that it has now, and as a page."""
    (champion,) = re.findall(r"big_tip\s*│ (\S+)\s*│ champion", shell.run("models", "list", "big_tip"))
    card = msgspec.json.decode(shell.run("models", "card", f"big_tip@{champion}"))
    assert (card["model"], card["version"], card["role"], card["explained"]) == ("big_tip", champion, "champion 1", True)
    assert card["made_with"]["packages"]["numpy"]
    assert "written to" in shell.run("models", "card", f"big_tip@{champion}", "--out", str(tmp_path / "card.html"))
    assert f"<h1>big_tip@{champion}</h1>" in (tmp_path / "card.html").read_text()
    assert "is neither .html nor .json" in shell.run("models", "card", f"big_tip@{champion}", "--out", "card.txt", code=1)


def test_the_lineage_of_a_prediction_and_of_an_event(shell: Shell, live: Stack) -> None:
    """A prediction names the events that it saw, and each of these names the prediction."""
    record = logged(OfflineStore(live.offline))[-1]
    logs = msgspec.json.decode(shell.run("lineage", record.id, "--json"))
    assert {log["view"] for log in logs} == {"zones", "drivers"}
    event = next(one for one in reversed(logs[0]["events"]) if "count_1h" in one["features"])
    seeing = msgspec.json.decode(shell.run("lineage", event["id"], "--event", "rides.taken", "--json"))
    assert (record.id, "zones") in {(one["id"], one["view"]) for one in seeing}
    assert f"logged predictions saw rides.taken {event['id']}" in shell.run("lineage", event["id"], "--event", "rides.taken")
    assert re.search(r"zones of [abc]: \d+ events of rides.taken, records of zones.p2", shell.run("lineage", record.id))
    assert "unknown prediction 'p0'" in shell.run("lineage", "p0", code=1)
    assert "unknown event 'rides'" in shell.run("lineage", "r1", "--event", "rides", code=1)


def test_an_altered_value_is_reported(shell: Shell, live: Stack) -> None:
    """The audit prints the entity and what is wrong with it, and ends with code 1."""
    with redis.Redis.from_url(live.redis_url) as client:
        tags = [hash_tag("rides", log_name("zones", 2), partition) for partition in range(2)]
        (key, *_) = sorted(key for tag in tags for key in client.scan_iter(match=tag + b"*"))
        value = client.get(key)
        client.set(key, b"other")
        try:
            output = shell.run("audit", "zones", code=1)
        finally:
            client.set(key, value)
    assert re.search(r"zones\[\d\] [abc] at \d+: view 'zones': a stored value of 5 bytes is cut short", output)
    assert re.search(r"\d+ values compared, 1 differ", output)
    assert "0 differ" in shell.run("audit", "zones")


def test_names_that_are_not_known(shell: Shell) -> None:
    """Unknown models and views are named with those that are."""
    assert "unknown model 'small_tip'; known: big_tip" in shell.run("train", "small_tip", code=1)
    assert "unknown view 'streets'; known: drivers, zones" in shell.run("audit", "streets", code=1)


def test_training_without_deployment(shell: Shell) -> None:
    """A version can be made without putting it in charge; too early a moment has no examples."""
    assert "\nstored, not deployed\n" in shell.run("train", "big_tip", "--no-deploy")
    assert "has no training examples" in shell.run("train", "big_tip", "--until", "2020-01-01", code=1)


def test_versions_and_their_roles(shell: Shell, live: Stack) -> None:
    """What is stored is listed with its role; a version is shown, compared, tried beside the champion, promoted, rolled back and retired."""
    listed = shell.run("models", "list", "big_tip")
    assert "\na new version: tidemill train big_tip\n" in listed
    roles = dict(re.findall(r"big_tip\s*│ (\S+)\s*│ (champion|)", listed))
    newest, champion = next(iter(roles)), next(version for version, role in roles.items() if role)
    assert sorted(roles.values(), reverse=True)[1:] == [""] * (len(roles) - 1)

    def seats() -> list[tuple[str, str, float]]:
        return [(one["version"], one["role"], one["share"]) for one in ask(f"{live.urls['inference']}/models/big_tip").json()["serving"]]

    told = shell.run("models", "show", f"big_tip@{newest}")
    assert "zones__mean_tip_1h" in told
    assert re.search(r"role\s+│ none", told)
    assert re.search(rf"version\s+│ {newest}", told)
    compared = shell.run("models", "compare", f"big_tip@{champion}", f"big_tip@{newest}")
    assert re.search(r"auc\s+│ 0\.\d+\s+│ 0\.\d+", compared)
    shell.run("models", "shadow", f"big_tip@{newest}")
    assert seats() == [(champion, "champion", 1.0), (newest, "shadow", 0.0)]
    store, deadline = OfflineStore(str(live.offline)), time.monotonic() + PATIENCE_SECONDS
    for i in itertools.count():  # a shadow may be left out on a busy machine
        body = {"entities": {"zone": "abc"[i % 3], "driver": i, "distance": 0.5}, "id": f"shadowed-{i}"}
        assert post(f"{live.urls['inference']}/predict/big_tip", json=body).json()["version"] == champion
        if i >= 20 and store.find("shadows") is not None and len(logged(store, shadows=True)) >= 20:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2 * (i >= 20))
    assert re.search(r"\b([2-9]\d|\d{3,}) predictions recomputed, \1 equal bit for bit", shell.run("replay", "--shadows"))
    compared = shell.run("models", "compare", f"big_tip@{champion}", f"big_tip@{newest}")
    assert re.search(r"the same ([2-9]\d|\d{3,}) requests, none with an outcome yet; outputs of", compared)
    said = shell.run("models", "canary", f"big_tip@{newest}", "5%")
    assert "MLflow" not in said  # the shadow was the challenger there already
    assert f"big_tip {newest}: challenger, 0.05 of the requests" in said
    assert "inference serves it" in said
    assert seats() == [(champion, "champion", 0.95), (newest, "challenger", 0.05)]
    assert f"big_tip {newest} is the champion in MLflow now" in shell.run("models", "promote", f"big_tip@{newest}")
    assert seats() == [(newest, "champion", 1.0)]
    assert f"big_tip {champion} is the champion in MLflow now" in shell.run("models", "rollback", "big_tip")
    assert seats() == [(champion, "champion", 1.0)]
    shell.run("models", "shadow", f"big_tip@{newest}")
    shell.run("models", "retire", f"big_tip@{newest}")
    shell.run("models", "deploy", f"big_tip@{champion}", "--no-wait")
    assert seats() == [(champion, "champion", 1.0)]


def test_roles_that_cannot_be(shell: Shell) -> None:
    """What is no version, no share or no model is told with what would be one; so is a rollback too many."""
    for arguments, says in (
        (("show", "big_tip"), "write MODEL@VERSION"),
        (("show", "big_tip@v9"), "no version v9 of big_tip is stored; choose one of: "),
        (("canary", "big_tip@v9", "half"), "'half' is no share of the requests; write 5% or 0.05"),
        (("canary", "big_tip@v9", "150%"), "at most 100%"),
        (("deploy", "small@v1"), "unknown model 'small'; known: big_tip"),
        (("rollback", "big_tip"), "no champion came before"),
    ):
        assert says in shell.run("models", *arguments, code=1), arguments
    assert "name two versions or more" in shell.run("models", "compare", "big_tip@v9", code=2)


def test_a_model_file_from_elsewhere(shell: Shell, live: Stack, tmp_path: Path) -> None:
    """It is imported by its contract, serves what numpy computes from the inputs, and every prediction is recomputed; a wrong contract is told."""
    names = load_project(Path(__file__).parents[1] / "live_project").models["big_tip"].input_names
    network, file, agreed = Perceptron(len(names)), tmp_path / "model.onnx", tmp_path / "contract.json"
    file.write_bytes(network.onnx().SerializeToString())
    written = {"inputs": names[::-1], "missing": dict.fromkeys(names, -1), "output": {"name": "output", "gives": "logit"}}
    agreed.write_text(json.dumps(written))
    champion = ask(f"{live.urls['inference']}/models/big_tip").json()["serving"][0]["version"]
    arguments = ["models", "import", "big_tip", str(file), "--contract", str(agreed), "--until", "2026-01-01T12:00"]
    said = shell.run(*arguments, "--no-deploy")
    assert "nothing proves that its inputs are in the order" in said
    assert "stored, not deployed" in said
    (version,) = re.findall(r"^big_tip (\S+): auc 0", said, re.MULTILINE)
    shell.run("models", "deploy", f"big_tip@{version}")
    asked = []
    for i in range(20):
        body = {"entities": {"zone": "abcd"[i % 4], "driver": i, "distance": i / 20}, "id": f"imported-{i}", "features": True}
        answer = post(f"{live.urls['inference']}/predict/big_tip", json=body).json()
        found = [answer["features"].get(name, {"value": i / 20})["value"] for name in names[::-1]]
        row = np.array([-1.0 if value is None else np.float32(value) for value in found])
        assert answer["version"] == version
        assert answer["probability"] == pytest.approx(1 / (1 + np.exp(-network.answers(row[None])[0, 0])), abs=1e-5)
        asked.append(answer["prediction_id"])
    deadline = time.monotonic() + 180
    while not set(asked) <= {prediction.id for prediction in logged(OfflineStore(live.offline))}:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "20 predictions recomputed, 20 equal bit for bit" in shell.run("replay", *asked)
    shell.run("models", "deploy", f"big_tip@{champion}")
    agreed.write_text(json.dumps(written | {"inputs": names[1:], "missing": {}}))
    assert f"has {len(names)} numbers a row, and the contract {len(names) - 1} columns" in shell.run(*arguments, code=1)


def test_ctrl_c_ends_a_play(shell: Shell, tmp_path: Path) -> None:
    """A play that would take hours ends at once, without a traceback, with the table as far as it came."""
    command = [*TIDEMILL, "replay-stream", "--start", "2026-01-02T20:00", "--speed", "1200x", "--step", "10m", "--no-predict"]
    out = tmp_path / "out"
    with out.open("wb") as file, subprocess.Popen(command, env=shell.environment, stdout=file, stderr=file) as process:
        while not psutil.Process(process.pid).net_connections():  # before that it is still importing
            assert process.poll() is None, out.read_text()
            time.sleep(0.1)
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
    assert "Traceback" not in out.read_text()
