"""The commands up, down, status and logs, run as a user runs them."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.ask import get as ask
from tests.local.observe import PYTHONPATH, STANDINS, alive, left_after, topics
from tests.patience import PATIENCE_SECONDS

from tidemill.local.addresses import find
from tidemill.local.processes import HOST, assign_ports

pytestmark = pytest.mark.integration
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]


@pytest.fixture
def modules(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands before the real services; `serving` there becomes ready, `ingestion` crashes."""
    folder = tmp_path / "modules"
    folder.mkdir()
    shutil.copy(STANDINS / "standin_ready.py", folder / "tidemill_serving.py")
    (folder / "project.py").write_text(
        "from tidemill import Event\nparked = Event('cars.parked', {'at': int}, time='at')\nPROJECT = 'cars'\n"
    )
    monkeypatch.setenv("TIDEMILL_PROJECT", str(folder))
    shutil.copy(STANDINS / "standin_crash.py", folder / "tidemill_drift.py")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{PYTHONPATH}")
    monkeypatch.setenv("TIDEMILL_HOME", str(home))
    monkeypatch.setenv("COLUMNS", "300")
    return folder


def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run([*TIDEMILL, *arguments], capture_output=True, text=True, timeout=180, check=False)


@contextmanager
def foreground(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `up` in a session of its own, as a terminal would; ready inside the block."""
    with subprocess.Popen([*TIDEMILL, "up", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C stops it" in line for line in process.stdout), "up did not become ready"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_shows_addresses_and_a_signal_stops_it_cleanly(modules: Path, home: Path, number: int) -> None:
    """Ctrl-C, which a terminal sends to the whole group, and SIGTERM end every process in good order."""
    with foreground("--service", "serving") as process:
        addresses = find(home)
        assert addresses is not None
        assert ask(addresses.urls["serving"]).json()["REDIS_URL"] == addresses.redis_url
        os.killpg(process.pid, number)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert alive(home) == []
    assert "ends in good order" in (home / "logs" / "serving.log").read_text()
    assert "SIGKILL" not in (home / "logs" / "supervisor.log").read_text()


def test_detached_it_lives_on_until_down(modules: Path, home: Path) -> None:
    """`up --detach` prints the addresses and returns; status, logs and down find the stack by its folder."""
    up = tidemill("up", "--detach", "--service", "serving")
    assert up.returncode == 0, up.stdout + up.stderr
    addresses = find(home)
    assert addresses is not None
    assert addresses.urls["serving"] in up.stdout
    assert addresses.redis_url in up.stdout

    status = tidemill("status")
    assert status.returncode == 0, status.stdout
    assert {"serving", "valkey"} <= set(re.findall(r"\w+", status.stdout))
    assert tidemill("up", "--service", "serving").returncode == 1

    last, whole = tidemill("logs", "serving", "--lines", "1"), tidemill("logs", "serving")
    assert "serves" in whole.stdout
    assert last.stdout.strip() in whole.stdout.splitlines()
    unknown = tidemill("logs", "servng")
    assert unknown.returncode == 1
    assert "serving, supervisor, valkey" in unknown.stderr

    assert "stopped" in tidemill("down").stdout
    assert left_after(home, 0) == []
    assert "nothing runs" in tidemill("down").stdout
    gone = tidemill("status")
    assert gone.returncode == 1
    assert "tidemill up" in gone.stderr


def test_status_tells_a_service_that_is_down(modules: Path, home: Path) -> None:
    """The exit code of status is 1 unless everything is ready; one that ended, and was begun anew, is told."""
    with foreground("--service", "serving"):
        addresses = find(home)
        assert addresses is not None
        os.kill(addresses.pids["serving"], signal.SIGSTOP)
        status = tidemill("status")
        os.kill(addresses.pids["serving"], signal.SIGCONT)
        assert status.returncode == 1
        assert "timed out" in status.stdout
        os.kill(addresses.pids["serving"], signal.SIGKILL)
        end = time.monotonic() + PATIENCE_SECONDS
        while "serving has ended once, last at " not in (said := tidemill("status").stdout):
            assert time.monotonic() < end, said
    assert left_after(home) == []


def test_down_ends_a_stack_in_the_foreground(modules: Path, home: Path) -> None:
    """`down` from another terminal lets the waiting `up` end with 0."""
    with foreground("--service", "serving") as process:
        assert "stopped" in tidemill("down").stdout
        assert process.wait(PATIENCE_SECONDS) == 0


def answers(url: str) -> bool:
    """Whether a service answers soon: `up` does not wait for the others when one of them ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            return ask(url).is_success
        time.sleep(0.1)
    return False


def test_a_service_that_fails_stops_no_other(modules: Path, home: Path, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is not 0, the error names the service and shows why; the others run on, and the mends that it names can be run: once its
    fault is mended, `restart` brings it back. Kafka is one that runs elsewhere."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    up = tidemill("up", "--detach", "--service", "serving", "--service", "drift")
    assert up.returncode == 1
    assert "cars.parked" in asyncio.run(topics(kafka)), "topics are made before services start"
    assert "drift ended instead of becoming ready" in up.stderr
    assert "FROBNICATE is missing" in up.stderr
    assert "Traceback" not in up.stderr
    assert "tidemill restart SERVICE" in up.stderr
    assert not (home / "logs" / "kafka.log").exists()
    addresses = find(home)
    assert addresses is not None
    assert answers(addresses.urls["serving"])
    assert tidemill("status").returncode == 1
    (modules / "tidemill_drift.py").unlink()
    shutil.copy(STANDINS / "standin_ready.py", modules / "tidemill_drift.py")
    assert "drift runs again" in tidemill("restart", "drift").stdout
    assert tidemill("status").returncode == 0
    assert "stopped" in tidemill("down").stdout
    assert left_after(home) == []


def test_restart_and_reset(modules: Path, home: Path) -> None:
    """A service gets a new process, and one that is not there is named with those that are. Data go only once the stack is down, and only what it
    made."""
    assert tidemill("up", "--detach", "--service", "serving").returncode == 0
    addresses = find(home)
    assert addresses is not None
    before = ask(addresses.urls["serving"]).json()["pid"]
    assert tidemill("restart", "serving", "valkey").returncode == 0
    assert ask(addresses.urls["serving"]).json()["pid"] != before
    unknown = tidemill("restart", "servng")
    assert (unknown.returncode, "valkey, serving" in unknown.stderr) == (1, True), unknown.stderr
    (home / "mine").write_text("stays")
    refused = tidemill("reset", "--yes")
    assert (refused.returncode, "tidemill down" in refused.stderr) == (1, True)
    assert (home / "valkey").exists()
    assert "stopped" in tidemill("down").stdout
    assert tidemill("reset", "--yes").returncode == 0
    assert [path.name for path in home.iterdir() if path.name != "lock"] == ["mine"]
    assert "nothing is in" in tidemill("reset").stdout


def test_ports_and_a_project_are_passed_on(modules: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given ports are used, and a project's path is made absolute, so that a service may work elsewhere."""
    ports = assign_ports(home, ["a", "b"], {})
    (home / "ports.json").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_PROJECT", "modules/project.py")
    with foreground("--service", "serving", "--port", f"serving={ports['a']}", "--valkey-port", str(ports["b"])) as process:
        told = ask(f"http://{HOST}:{ports['a']}").json()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)
    assert told["REDIS_URL"] == f"redis://{HOST}:{ports['b']}/0"
    assert told["TIDEMILL_PROJECT"] == str(modules / "project.py")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--service", "servng"], "unknown service 'servng'"),
        (["--port", "serving"], "is not SERVICE=PORT"),
        (["--port", "serving=0"], "is not SERVICE=PORT"),
        (["--port", "servng=8000"], "unknown service 'servng'"),
        (["--port", "serving=http"], "is not SERVICE=PORT"),
    ],
)
def test_a_wrong_argument_is_explained(modules: Path, home: Path, arguments: list[str], says: str) -> None:
    """A typing mistake starts nothing and says what would be right."""
    up = tidemill("up", *arguments)
    assert up.returncode == 1
    assert says in up.stderr
    assert not (home / "ports.json").exists()


@pytest.mark.parametrize(("project", "says"), [("", "no project is named"), ("nowhere", "no folder, file or module 'nowhere'")])
def test_a_project_that_cannot_be_loaded_starts_nothing(
    modules: Path, home: Path, monkeypatch: pytest.MonkeyPatch, project: str, says: str
) -> None:
    """A mistake in the project is told before any server starts."""
    monkeypatch.setenv("TIDEMILL_PROJECT", project)
    up = tidemill("up")
    assert up.returncode == 1
    assert says in up.stderr
    assert not (home / "ports.json").exists()


def test_logs_follow_until_interrupted(modules: Path, home: Path) -> None:
    """`logs --follow` prints what is there and then what arrives."""
    file = home / "logs" / "serving.log"
    file.write_text("old\nnew\n")
    with subprocess.Popen([*TIDEMILL, "logs", "serving", "-n", "1", "--follow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "new\n"
        with file.open("a") as log:
            log.write("arrived\n")
        assert process.stdout.readline() == "arrived\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_without_the_extra_the_command_says_what_to_install(modules: Path) -> None:
    """Where the local parts are not installed, the other commands still work and this one names the extra."""
    (modules / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'jgo' else find(name, package)\n"
    )
    assert tidemill("--help").returncode == 0
    up = tidemill("up")
    assert up.returncode == 1
    assert "pip install 'tidemill[local]'" in up.stderr
