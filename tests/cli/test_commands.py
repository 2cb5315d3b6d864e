"""Commands without a running system: their help, what they show, and errors that name cause and mend instead of a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.archive.trips import FOLDER as TRIPS
from tests.archive.trips import Sent, project_of, trip
from tests.offline.lake import ROOT
from typer.testing import CliRunner

from tidemill.archive.rows import event_table
from tidemill.cli import app
from tidemill.cli.times import to_ms
from tidemill.errors import TidemillError
from tidemill.offline.store import OfflineStore

LIVE = Path(__file__).parents[1] / "live_project"
FLIGHTS = ROOT / "examples" / "flights"
COMMANDS = ["up", "down", "status", "logs", "check", "train", "train-set", "replay-stream", "audit", "replay", "erase"]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder without a stack, in a terminal of 80 columns."""
    for name in ("TIDEMILL_PROJECT", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TIDEMILL_OFFLINE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("rich.console.Console.width", 80)


def shown(*arguments: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def error(*arguments: str) -> TidemillError:
    """The error with which a command ends; `main` prints it."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, TidemillError), result.output
    return result.exception


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """The help says what the command does, within 80 columns."""
    output = shown(command, "--help")
    assert f" {command} [OPTIONS]" in output
    assert all(len(line) <= 80 for line in output.splitlines())


def test_the_help_names_every_command() -> None:
    """Nothing is hidden."""
    output = shown("--help")
    assert all(f" {command} " in output for command in COMMANDS)


@pytest.mark.parametrize("folder", [LIVE, FLIGHTS])
def test_check_can_be_read_at_80_columns(folder: Path) -> None:
    """Every view and every feature stands there whole, and no line is cut."""
    output = shown("check", str(folder), "--topics")
    assert "…" not in output
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "view " in output


def test_check_shows_what_is_declared() -> None:
    """Views with their event, entity, tiles and features; models with what a request gives; topics on demand."""
    output = shown("--project", str(LIVE), "check")
    assert "project rides: 2 events, 2 views, 1 model" in output
    assert "view zones: rides.taken by zone; tiles of 5m\n    count_1h, count_6h, mean_tip_1h, mean_tip_6h" in output
    assert "view drivers: rides.taken by driver; no windows" in output
    assert "model big_tip: 7 inputs; a request gives\n    zone, driver, distance" in output
    assert "rides.view.zones" not in output
    assert "expires after 6h" in shown("check", str(FLIGHTS))


def test_check_names_a_view_to_which_the_asking_event_belongs(tmp_path: Path) -> None:
    """It says so if the question is of the event's own time; not of a view of another event, nor if the event is known before its question."""
    shop = (ROOT / "examples" / "shop" / "project.py").read_text()
    note = "customers: of the event that asks, bought. Ask before it is published: training leaves it out"
    for text, noted in (
        (shop, True),
        (shop.replace("[customers, tm", "[tm"), False),
        (shop.replace('"at": str,', '"at": str, "ships": str,').replace('    at="at"', '    at="ships"'), False),
    ):
        (tmp_path / "project.py").write_text(text)
        output = " ".join(shown("check", str(tmp_path)).split())
        assert "model returns: " in output
        assert (note in output) is noted
        assert ("Ask before" in output) is noted
    assert "Ask before" not in shown("check", str(ROOT / "examples" / "orders"))


def test_check_shows_the_classes_of_a_model(tmp_path: Path) -> None:
    """Those that are declared, in the order of the answers."""
    text = (
        "from tidemill import Event, Model, Outcome, Request\nPROJECT = 'rides'\n"
        "asked = Event('asked', {'at': int, 'ride': str, 'wind': float}, 'at')\n"
        "ended = Event('ended', {'at': int, 'ride': str, 'how': str}, 'at')\n"
        "how = Model('how', asked, 'at', 'ride', [Request('wind')], Outcome(ended, 'how', 'ride'CLASSES), list)\n"
    )
    for classes, shows in (("", False), (", classes=['on time', '[red]late']", True)):
        (tmp_path / "project.py").write_text(text.replace("CLASSES", classes))
        assert ("answers with one of on time, [red]late" in shown("check", str(tmp_path))) is shows


def test_check_counts_what_lies_in_lists_and_names_a_wrong_argument(tmp_path: Path) -> None:
    """Views of a loop, with the condition of their events; and one line for a mistake."""
    text = (
        'from tidemill import *\nsold = Event("sold", {"at": int, "shop": str, "pay": str}, time="at")\nfor pay in ("Cash", "Card"):\n    '
    )
    made = text + 'FeatureView(pay, sold, "shop", [count()], where=f"pay in [{pay!r}]", windows=["1h"])\n'
    (tmp_path / "project.py").write_text(made)
    output = shown("check", str(tmp_path))
    assert "1 event, 2 views, 0 models" in output
    assert "view Cash: sold by shop where pay in ['Cash']; tiles of 5m" in output
    (tmp_path / "project.py").write_text(made.replace("windows=", "widows="))
    assert "did you mean windows=?" in error("check", str(tmp_path)).mend


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check"], ". has no project.py; write your declarations into project.py"),
        (["check", "/nowhere/x.py"], "there is no file /nowhere/x.py; pass --project"),
        (["--project", "no.module", "check"], "no folder, file or module 'no.module'"),
        (["train", "big_tip"], "no project is named; pass --project, set TIDEMILL_PROJECT, or start a stack"),
        (["audit"], "no project is named"),
        (["replay"], "no project is named"),
        (["replay-stream"], "no project is named"),
        (["--project", str(LIVE), "train", "big_tip"], "no stack runs here and KAFKA_BOOTSTRAP_SERVERS is not set; run `tidemill up`"),
        (["--project", str(LIVE), "audit"], "no stack runs here and KAFKA_BOOTSTRAP_SERVERS is not set"),
        (["--project", str(LIVE), "replay", "p1"], "no stack runs here"),
        (["--project", str(LIVE), "replay-stream"], "no stack runs here"),
    ],
)
def test_without_a_project_or_a_stack(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what is missing and how to get it."""
    monkeypatch.chdir(tmp_path)
    assert says in str(error(*arguments))


@pytest.fixture
def addressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses where nothing answers."""
    monkeypatch.setenv("TIDEMILL_PROJECT", str(LIVE))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("TIDEMILL_OFFLINE", str(tmp_path / "offline"))


@pytest.mark.usefixtures("addressed")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["replay-stream", "--start", "soon"], "'soon' is not a date or time; write for example"),
        (["replay-stream", "--end", "2026-13-01"], "'2026-13-01' is not a date or time"),
        (["replay-stream", "--start", "2026-01-02", "--end", "2026-01-01"], "there is nothing from 2026-01-02 to 2026-01-01; let --start"),
        (["replay-stream", "--speed", "fast"], '\'fast\' is not a speed; write for example "600x", or "max"'),
        (["replay-stream", "--speed", "-1x"], "'-1x' is not a speed"),
        (["replay-stream", "--speed", "nan"], "'nan' is not a speed"),
        (["replay-stream", "--step", "5 parsecs"], "--step: '5 parsecs' is not a duration; write a whole number and a unit"),
        (["replay-stream", "--recording", "other"], "project 'rides' has 1 recordings: two_days; declare a Recording, or choose one"),
        (["replay-stream"], "the address of inference is not known; start the stack with `tidemill up`, or set TIDEMILL_INFERENCE_URL"),
        (["train", "big_tip", "--until", "later"], "'later' is not a date or time"),
        (["replay"], "unknown table 'predictions'"),
    ],
)
def test_mistakes_are_named_before_anything_is_started(arguments: list[str], says: str) -> None:
    """Bad dates, speeds, steps and names."""
    assert says in str(error(*arguments))


@pytest.mark.usefixtures("addressed")
def test_a_sample_of_nothing_is_refused() -> None:
    """A sample has at least one prediction."""
    result = CliRunner().invoke(app, ["replay", "--sample", "0"])
    assert result.exit_code == 2
    assert "--sample" in result.output


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-02", 86_400_000), ("1970-01-01T00:00:01", 1000), ("1970-01-01T01:00:00+01:00", 0), ("1970-01-01T00:00:00.5Z", 500),
    ],
)  # fmt: skip
def test_moments_are_utc_unless_they_say_otherwise(text: str, ms: int) -> None:
    """Dates, times and offsets."""
    assert to_ms(text) == ms


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process."""
    command = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments]
    path = f"{ROOT / 'shared'}{os.pathsep}{ROOT / 'services'}"
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, text=True, timeout=180, check=False
    )


def test_main_prints_errors_without_a_traceback(tmp_path: Path) -> None:
    """One line on standard error, exit code 1; a mistake in a project is told with its place."""
    (tmp_path / "project.py").write_text("from tidemill import Event\nEvent('x', {'at': float}, time='at')\n")
    result = run("check", str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "project.py:2: time:" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_refuses_what_up_would_refuse(tmp_path: Path) -> None:
    """An event on one of the project's own topics is a mistake before anything starts."""
    text = "from tidemill import Event\nPROJECT = 'shop'\nsold = Event('shop.alerts', {'at': int}, time='at')\n"
    (tmp_path / "project.py").write_text(text)
    result = run("check", str(tmp_path))
    assert result.returncode == 1
    assert "project.py:3: topic: topic 'shop.alerts' is one of the project's own; give the event another topic" in result.stderr


@pytest.mark.integration
@pytest.mark.parametrize("command", [["audit"], ["replay-stream", "--no-predict"]])
def test_servers_that_do_not_answer(command: list[str], tmp_path: Path) -> None:
    """Kafka or Redis that are not there are named with their address."""
    shutil.copytree(LIVE, tmp_path / "rides")
    result = run(
        "--project", str(tmp_path / "rides"), *command,
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", REDIS_URL="redis://127.0.0.1:1/0", TIDEMILL_OFFLINE=str(tmp_path),
    )  # fmt: skip
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.integration
def test_erase_counts_first_and_says_what_it_leaves(tmp_path: Path, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes nothing is deleted; with it the events are gone; the places that still hold the value are named. Mistakes are told."""
    for name, value in (
        ("TIDEMILL_PROJECT", str(TRIPS)), ("TIDEMILL_OFFLINE", str(tmp_path / "offline")), ("KAFKA_BOOTSTRAP_SERVERS", kafka), ("REDIS_URL", "nowhere:1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    project = project_of()
    table = event_table(project, project.events["trips"])
    rows = table.rows_of({0: [Sent(i, trip(i)) for i in range(10)]})
    OfflineStore(tmp_path / "offline").topic_table(table).append(rows, {(table.topic, 0): (0, 10)})
    monkeypatch.setattr("rich.console.Console.width", 200)
    first = shown("erase", "trips", "zone=z1")
    assert "2 archived events of trips have zone=z1, known from 2023-11-14T22:13:20Z" in first
    assert "add --yes" in first
    assert "view zones: topic trips.view.zones.p1" in first
    assert "2 deleted" in shown("erase", "trips", "zone=z1", "--yes")
    assert "0 archived events" in shown("erase", "trips", "zone=z1")
    assert "unknown event" in str(error("erase", "tripz", "zone=z1"))
    assert "write FIELD=VALUE with one of at, id, zone, seats" in str(error("erase", "trips", "zone"))
