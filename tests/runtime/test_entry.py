"""How a service ends as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from tidemill.runtime.entry import service_main
from tidemill.errors import SettingsError

def run():
    {body}

sys.exit(service_main("tried", run))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", 0, ""),
        ("raise SettingsError('PORT is not set', mend='set PORT')", 1, "set PORT"),
        ("raise RuntimeError('nobody thought of it')", 1, "nobody thought of it"),
    ],
)
def test_a_service_ends_with_a_code_and_says_why(body: str, code: int, said: str) -> None:
    """What ends a service stands in its log, with the mend where there is one, and its exit code tells."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert '"level":"error"' in done.stderr or code == 0


SERVICE = """
import os
import sys
from dataclasses import dataclass
from tidemill.runtime.asgi import OpsApp
from tidemill.runtime.entry import run_service
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.logs import get_logger
from tidemill.runtime.service import Service
from tidemill.runtime.settings import RedisSettings, ServiceSettings

@dataclass(frozen=True, kw_only=True)
class TriedSettings(ServiceSettings):
    redis: RedisSettings

async def work():
    get_logger("tried").info("works", nice=os.nice(0))

def build(settings):
    get_logger("tried").info("builds", nice=os.nice(0))
    board = HealthBoard()
    return Service(settings, board, OpsApp(board), work)

sys.exit(run_service("tried", TriedSettings, build))
"""


def run_service(**environment: str) -> subprocess.CompletedProcess[str]:
    """A service whose work ends at once."""
    variables = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "TIDEMILL_PORT": "0", **environment}
    return subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, check=False, env=variables)


@pytest.mark.slow
def test_a_service_logs_its_settings_masked_and_runs() -> None:
    """The first line says what it runs with, no secret in it; then it answers and works, and work that ends is an error."""
    done = run_service(TIDEMILL_PROJECT="taxis", REDIS_URL="redis://me:hunter2@r:1/0")
    first, *rest = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["message"], first["service"], first["TIDEMILL_PROJECT"], first["REDIS_URL"]) == (
        "settings",
        "tried",
        "taxis",
        "redis://***@r:1/0",
    )
    assert "hunter2" not in done.stderr
    assert "listening" in [line["message"] for line in rest]
    assert (done.returncode, rest[-1].get("reason")) == (1, "the work of this service ended by itself")


@pytest.mark.slow
def test_a_service_lets_others_go_first_once_it_runs() -> None:
    """While it reads its code and its project it has the niceness of who started it: a nice process starves at that on a busy machine."""
    done = run_service(TIDEMILL_PROJECT="taxis", REDIS_URL="redis://r:1/0", TIDEMILL_NICE="3")
    nice = {line["message"]: line.get("nice") for line in map(json.loads, done.stderr.splitlines())}
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert (nice["builds"], nice["works"]) == (before, before + 3)


def test_a_service_names_all_that_it_lacks() -> None:
    """One line, exit code 1, every variable with what to set it to."""
    done = run_service()
    (line,) = (json.loads(line) for line in done.stderr.splitlines())
    assert done.returncode == 1
    assert line["reason"] == "TIDEMILL_PROJECT is not set and REDIS_URL is not set"
    assert line["mend"].startswith("set TIDEMILL_PROJECT to the folder")
    assert "set REDIS_URL to redis://" in line["mend"]
