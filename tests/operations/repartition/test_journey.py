"""The whole way of a changed partition count: refused, repartitioned by a command that is killed again and again, proved, and served as before."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ask import get as ask
from tests.ask import post
from tests.offline.lake import ROOT

from tidemill.kafka.topics import offset_ranges
from tidemill.local.services import SERVICES
from tidemill.local.stack import Stack
from tidemill.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]
NOON_MS = 1_767_225_600_000 + 12 * 3_600_000
PATIENCE_SECONDS = 180


class Journey:
    """A stack of its own, whose project can be changed, and a terminal."""

    def __init__(self, stack: Stack, project: Path) -> None:
        self.stack, self.project = stack, project
        self.environment = {
            **os.environ, "TIDEMILL_HOME": str(stack.home), "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services", ROOT))),
        }  # fmt: skip

    def run(self, *arguments: str, code: int = 0, command: list[str] | None = None) -> str:
        """What a command prints, when it ends with this code."""
        result = subprocess.run(
            [*(command or TIDEMILL), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def declare(self, partitions: int) -> None:
        """Change the view's partition count."""
        file = self.project / "project.py"
        text = re.sub(r"partitions=\d+", f"partitions={partitions}", file.read_text())
        assert f"partitions={partitions}" in text
        file.write_text(text)

    def answers(self) -> list[tuple[float, dict[str, Any]]]:
        """What the model says of every zone and driver at one moment, with the features it saw."""
        instances = [
            {"entities": {"zone": zone, "driver": driver, "distance": 0.5}, "time": NOON_MS} for zone in "abcx" for driver in range(10)
        ]
        url = f"{self.stack.urls['inference']}/predict/big_tip"
        answer = post(url, json={"instances": instances, "features": True})  # 503 until the online store has caught up with a new log
        found = answer.raise_for_status().json()["predictions"]
        return [(one["probability"], {name: value["value"] for name, value in one["features"].items()}) for one in found]

    def wait_saying(self, service: str, text: str) -> None:
        """Return once a service's readiness gives this reason."""
        deadline, said = time.monotonic() + PATIENCE_SECONDS, ""
        while text not in said:
            assert time.monotonic() < deadline, f"{service} said {said!r}"
            try:
                said = ask(f"{self.stack.urls[service]}/health/ready", timeout=180).text
            except httpx.HTTPError as error:
                said = repr(error)
            time.sleep(0.2)

    def records(self, topic: str) -> int:
        """How many records a topic holds."""
        found = asyncio.run(offset_ranges(KafkaSettings(bootstrap_servers=self.stack.kafka), topic))
        return sum(end for _, end in found.values())


@pytest.fixture
def journey(tmp_path: Path) -> Iterator[Journey]:
    """The whole system with twelve hours of history and a model that serves."""
    project = tmp_path / "rides"
    shutil.copytree(ROOT / "tests/live_project", project, ignore=shutil.ignore_patterns("__pycache__"))
    services = [service for service in SERVICES if service.name in ("ingestion", "features", "offline", "predlog", "inference")]
    with Stack(tmp_path / "home", str(project), services=services, timeout_seconds=PATIENCE_SECONDS) as stack:
        made = Journey(stack, project)
        made.run("replay-stream", "--end", "2026-01-01T12:00", "--speed", "max", "--step", "3h", "--no-predict")
        made.run("train", "big_tip", "--until", "2026-01-01T12:00")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ask(f"{stack.urls['inference']}/v2/models/big_tip/ready").is_error:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made


def test_another_partition_count(journey: Journey) -> None:
    """Run, change partitions, see the refusal, repartition with kills in the middle, start: the audit is exact, answers are equal, replay too."""
    stack = journey.stack
    before = journey.answers()
    assert len({probability for probability, _ in before}) > 10
    old = journey.records("rides.view.zones.p2")
    assert old > 600
    assert "ingestion runs: the group rides.ingestion has" in _changed(journey, 5)

    for service in ("ingestion", "features", "offline", "inference"):
        stack.halt(service)
    for service in ("ingestion", "features", "offline"):
        stack.supervisor.start(service)
        journey.wait_saying(service, "run: tidemill repartition zones")
    assert "stored" in journey.run("train", "big_tip", "--until", "2026-01-01T12:00", "--no-deploy")  # from the archive, not from the log
    assert journey.records("rides.view.zones.p5") == 0

    for writes in (0, 1, 2, 5):
        dying = [sys.executable, "-m", "tests.operations.repartition.dying", str(writes)]
        journey.run("repartition", "zones", command=dying, code=-signal.SIGKILL)
    assert 0 < journey.records("rides.view.zones.p5") < old
    done = journey.run("repartition", "zones")
    assert f"{old} records copied from zones.p2 to zones.p5" in done
    assert "3 entities compared, all equal" in done
    assert journey.records("rides.view.zones.p5") == old
    assert "zones.p5 already" in journey.run("repartition", "zones")

    stack.wait_ready("ingestion", "features", "offline")
    stack.resume("inference")
    assert journey.answers() == before
    assert re.search(r"[1-9][\d,]* values compared, 0 differ", journey.run("audit"))
    journey.run("replay-stream", "--start", "2026-01-01T12:00", "--end", "2026-01-01T13:00", "--speed", "max")
    assert re.search(r"[1-9][\d,]* values compared, 0 differ", journey.run("audit"))
    assert re.search(r"(\d+) predictions recomputed, \1 equal bit for bit", journey.run("replay", "--sample", "1000"))


def _changed(journey: Journey, partitions: int) -> str:
    """Declares another count; what repartition says while ingestion runs."""
    journey.declare(partitions)
    return journey.run("repartition", "zones", code=1)
