"""`tidemill simulate` without a running system: what it would send, and what every wrong option is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.offline.lake import ROOT
from tests.patience import PATIENCE_SECONDS
from typer.testing import CliRunner

from tidemill.cli import app
from tidemill.cli.init import make_project
from tidemill.errors import TidemillError
from tidemill.traffic.drifts import KINDS

ORDERS = str(ROOT / "examples" / "orders")


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder without a stack, in a terminal of 80 columns."""
    for name in ("TIDEMILL_PROJECT", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TIDEMILL_OFFLINE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


def simulated(*arguments: str, project: str = ORDERS) -> list[tuple[str, dict[str, Any]]]:
    """What would be sent: "ask MODEL" or the event, and the body."""
    result = CliRunner().invoke(app, ["--project", project, "simulate", "--dry-run", *arguments])
    assert result.exit_code == 0, result.output
    lines = [line.split("  ", 2) for line in result.stdout.splitlines()]
    return [
        (parts[1].strip() or parts[2].split("  ")[0], json.loads(line[line.index("{") :]))
        for parts, line in zip(_split(lines), result.stdout.splitlines(), strict=True)
    ]


def _split(lines: list[list[str]]) -> list[list[str]]:
    return [["", *("  ".join(line).split(" s  ", 1)[1].split("  ", 1))] for line in lines]


def error(*arguments: str) -> TidemillError:
    """The error with which it ends."""
    result = CliRunner().invoke(app, ["--project", ORDERS, "simulate", *arguments])
    assert isinstance(result.exception, TidemillError), result.output
    return result.exception


def test_a_dry_run_shows_what_would_be_sent() -> None:
    """Questions, then their events; the same seed, the same values."""
    first, again = simulated("--seed", "7"), simulated("--seed", "7")
    assert [what for what, _ in first[:2]] == ["ask pays_late", "orders.placed"]
    assert first[0][1]["entities"] == {name: first[1][1][name] for name in ("shop", "amount")}
    assert [body.get("amount") for _, body in first] == [body.get("amount") for _, body in again]
    assert len(first) == 20
    assert len([what for what, _ in simulated("--events", "2") if not what.startswith("ask ")]) == 2


def test_rows_are_drawn_from_files(tmp_path: Path) -> None:
    """With their values; ids and times are new."""
    file = tmp_path / "placed.csv"
    file.write_text("order,at,shop,amount\no1,1767571200000,north,12.5\n")
    found = simulated("--like", f"orders.placed={file}", "--drift", "amount:scale=2")
    assert {(body["shop"], body["amount"]) for what, body in found if what == "orders.placed"} == {("north", 25.0)}
    assert "o1" not in json.dumps(found)


@pytest.mark.parametrize("template", ["tabular", "text", "image", "fraud"])
def test_templates_can_be_simulated(template: str, tmp_path: Path) -> None:
    """Each has questions, events and outcomes without any file."""
    make_project(tmp_path / "shop", template)
    found = simulated("--delay", "1ms", project=str(tmp_path / "shop"))
    assert len({what for what, _ in found}) == 3


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--drift", "amuont:shift=2"], "there is no field 'amuont'"),
        (["--delay", "soon"], "--delay"),
        (["--over", "mail"], "--over mail"),
        (["--model", "nobody"], "unknown model 'nobody'"),
        (["--like", "orders.placed"], "is not EVENT=FILE"),
        (["--like", "orders.place=x.csv"], "unknown event 'orders.place'"),
        (["--like", "orders.placed=nowhere.csv"], "cannot be read"),
    ],
)
def test_a_wrong_option_is_told(arguments: list[str], cause: str) -> None:
    """Before anything is sent."""
    assert cause in str(error("--dry-run", *arguments))


def test_nothing_is_sent_where_nothing_runs() -> None:
    """Only a stack that is known by the folder or the environment gets anything."""
    assert "no stack runs here" in str(error())


def test_the_help_names_every_kind_of_drift() -> None:
    """Within 80 columns."""
    output = CliRunner().invoke(app, ["simulate", "--help"]).stdout
    assert all(name in output for name in KINDS)
    assert all(len(line) <= 80 for line in output.splitlines())


@pytest.mark.integration
def test_ctrl_c_ends_with_the_counts(kafka: str, tmp_path: Path) -> None:
    """What was sent until then is told, and that outcomes are missing."""
    arrived = threading.Event()

    class Ingestion(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            events = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = json.dumps({"results": [{} for _ in events]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            arrived.set()

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Ingestion) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            **os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": "redis://127.0.0.1:1", "TIDEMILL_OFFLINE": str(tmp_path),
            "TIDEMILL_PROJECT": ORDERS, "TIDEMILL_INGESTION_URL": f"http://127.0.0.1:{server.server_port}",
            "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services",
        }  # fmt: skip
        command = [sys.executable, "-c", "from tidemill.cli import main; main()", "simulate", "--no-ask", "--seconds", "600"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as simulating:
            while not arrived.wait(0.2):
                assert simulating.poll() is None, simulating.communicate()
            simulating.send_signal(signal.SIGINT)
            said, _ = simulating.communicate(timeout=PATIENCE_SECONDS)
        server.shutdown()
    assert simulating.returncode == 130
    assert " events sent" in said
    assert said.endswith("stopped: outcomes that were due later are not sent\n")
