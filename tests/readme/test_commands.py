"""Every command of the README is run here, and what it prints is what the README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.patience import PATIENCE_SECONDS

from tidemill.clock import Deadline
from tidemill.local.addresses import find

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
KEYS = {
    "events", "predictions", "outcomes_joined", "auc", "auc_without_windows", "ways", "months", "audit", "replay", "verify", "dead_letters", "seconds",
    "training_seconds",
}  # fmt: skip


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def make(*arguments: str, home: Path) -> str:
    """Runs make as a user would, on the environment that is there and with the data in a folder of its own."""
    return ran("make", "--no-print-directory", "-o", "install", f"BIN={BIN}", *arguments, home=home)


def ran(*command: str, home: Path, timeout_seconds: float = 900) -> str:
    """Runs a command in the project's folder, which must end well; returns what it printed."""
    environment = {**os.environ, "TIDEMILL_HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def serves(home: Path) -> bool:
    """Whether a stack has a version of the flights' model that answers."""
    addresses = find(home)
    if addresses is None or "inference" not in addresses.urls:
        return False
    try:
        return httpx.get(f"{addresses.urls['inference']}/v2/models/flight_late/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False


def retrain_soon(home: Path) -> str:
    """Asks by hand for a new version of the flights' model, as soon as the demo's stack serves one. Returns what the command printed."""
    waiting = Deadline(3 * PATIENCE_SECONDS)
    while not serves(home):
        assert not waiting.expired
        time.sleep(0.5)
    return ran(str(BIN / "tidemill"), "retrain", "flight_late", home=home)


def test_every_command_is_known_here() -> None:
    """A command that is added to the README must be added to these tests."""
    lines = {line for block in blocks("sh") for line in block.strip().split("\n")}
    curls = {line for line in lines if line.startswith("curl")}
    assert lines - curls == {"make demo", "make up"}
    assert len(curls) == 2


def test_make_test_is_what_ci_runs() -> None:
    """The project's own check calls the README's test command, and that runs every test: without servers, the slow ones of these, with them, and the last.

    What proves again what another test proves is left to the soak, and so are the shares that are not due.
    """
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert chosen("check") == ["not integration and not slow"]
    assert chosen("test") == [*chosen("check"), "slow and not integration", "integration and not last and not soak", "integration and last"]
    assert chosen("soak") == ["soak", "share"]


def chosen(target: str) -> list[str]:
    """Which tests a target of the Makefile runs, by their marks."""
    recipe = subprocess.run(["make", "-n", "-o", "install", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = [shlex.split(line) for line in recipe.splitlines() if "-m pytest" in line or "-m tests.again" in line]
    return [line[line.index("-m", line.index("-m") + 1) + 1] for line in words]


@pytest.mark.integration
@pytest.mark.last
def test_demo(tmp_path: Path) -> None:
    """The demo ends by itself, proves what it served, writes the facts that the README promises, and has a model worth having. A version that is asked for
    meanwhile is trained, too: of alarms about performance a month is too short."""
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(retrain_soon, tmp_path / "home/demo")
        output = make("demo", "MONTHS=1", home=tmp_path / "home")
    assert "flight_late" in asking.result()
    report = json.loads((tmp_path / "home/demo/report.json").read_text())
    assert report.keys() >= KEYS
    assert report["audit"]["checked"] > 10_000
    assert report["audit"]["mismatched"] == 0
    assert report["replay"] == {"checked": 1000, "equal": 1000}
    assert (report["verify"]["differ"], report["verify"]["labels"], report["verify"]["rows"]) == (0, 1000, 20)
    assert report["verify"]["values"] > 500
    assert report["dead_letters"] == 0
    assert report["auc"] > 0.77
    assert report["auc_without_windows"] < report["auc"] - 0.02
    (june,) = report["months"]
    assert june["month"] == "2013-06"
    assert june["flights"] == report["outcomes_joined"] > 25_000
    assert june["alerts"]
    assert june["auc"]["frozen"] == june["auc"]["monthly"] > 0.77
    assert june["runs"][0].startswith("trained ")
    assert "(hand)" in june["runs"][0]
    assert report["ways"]["loop"]["retrainings"] == 1
    assert all(found["calibration_error"] < 0.05 for found in report["ways"].values())
    assert "equal bit for bit" in " ".join(output.split())  # lines are cut to a width


class _Stack:
    """A stack started by `make up`, and what that printed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.printed = make("up", home=home)
        addresses = find(home)
        assert addresses is not None
        self.inference, self._ingestion = addresses.urls["inference"], addresses.urls["ingestion"]

    def shell(self, command: str) -> dict[str, Any]:
        """Runs a line of the README with the addresses that `make up` printed, and decodes what it prints."""
        environment = {**os.environ, "INFERENCE": self.inference, "INGESTION": self._ingestion}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True)
        answer: dict[str, Any] = msgspec.json.decode(done.stdout)
        return answer


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Stack]:
    """`make up`, and `make down` at the end."""
    home = tmp_path_factory.mktemp("up")
    try:
        yield _Stack(home)
    finally:
        make("down", home=home)
    assert find(home) is None


@pytest.mark.integration
@pytest.mark.last
def test_up_and_ask(stack: _Stack) -> None:
    """`make up` prints where to ask, and the README's question gets the README's answer."""
    (curl,) = [block for block in blocks("sh") if block.startswith("curl")]
    publish, ask = curl.strip().split("\n")
    (promised,) = blocks("json")
    assert stack.inference in stack.printed
    assert f"{stack.inference}/docs" in stack.printed
    assert "position" in stack.shell(publish)["results"][0]
    answer = stack.shell(ask)
    said: dict[str, Any] = msgspec.json.decode(promised.replace(",\n    ...", ""))
    assert answer.keys() == said.keys()
    assert answer["model"] == said["model"]
    assert answer["time"] == said["time"]
    assert answer["probability"] == pytest.approx(said["probability"], abs=0.05)
    for name, value in said["features"].items():
        assert answer["features"][name] == value


@pytest.mark.integration
@pytest.mark.last
def test_up_again_keeps_what_is_there(stack: _Stack) -> None:
    """A second `make up` after `make down` finds its data and its model, and loads nothing again."""
    make("down", home=stack.home)
    again = _Stack(stack.home)
    assert "fitting" in stack.printed
    assert "fitting" not in again.printed
    vars(stack).update(vars(again))


@pytest.mark.integration
@pytest.mark.last
def test_prove(stack: _Stack) -> None:
    """`make prove` compares every value and recomputes the prediction that was asked for."""
    stack.shell(next(line for block in blocks("sh") for line in block.split("\n") if "/predict/" in line))
    output = make("prove", home=stack.home)
    assert re.search(r"[\d,]{5,} values compared, 0 differ", output)
    assert re.search(r"(\d+) predictions recomputed, \1 equal bit for bit", output)
