"""A model that learns online, and has no version yet, as in everybody's first minutes; or whose learner learns no more."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.ask import get
from tests.offline.lake import ROOT
from tests.patience import PATIENCE_SECONDS
from tests.retraining.made import step
from tests.retraining.test_online import PROJECT

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.kafka.topics import ensure_topics
from tidemill.records import DeploymentRecord
from tidemill.retrainings import RetrainingRecord
from tidemill.runtime.health import HealthBoard
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.retraining import append_retraining, read_retraining
from tidemill.streams.topics import topic_specs
from tidemill_retraining.clocks import MachineClock
from tidemill_retraining.logs import Logs
from tidemill_retraining.online import OnlineLoop
from tidemill_retraining.settings import RetrainingSettings
from tidemill_retraining.told import LearnerTold

pytestmark = pytest.mark.integration


def test_a_model_without_a_version_is_waited_for(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """The service is ready, and says of a run that is asked for why there is none, and what to do."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix, every=60))
    project, settings, log = load_project(tmp_path), KafkaSettings(bootstrap_servers=kafka), tmp_path / "log"
    asyncio.run(ensure_topics(settings, topic_specs(project)))
    at = now_ms()
    asyncio.run(append_retraining(settings, topic_prefix, RetrainingRecord("late", at, "asked", at, "asked", "hand")))
    environment = {
        **os.environ, "TIDEMILL_HOST": "127.0.0.1", "TIDEMILL_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": kafka, "TIDEMILL_PROJECT": str(tmp_path),
        "TIDEMILL_OFFLINE": str(tmp_path / "lake"), "PYTHONPATH": f"{ROOT}/shared:{ROOT}/services",
    }  # fmt: skip
    with log.open("wb") as out, subprocess.Popen([sys.executable, "-m", "tidemill_retraining"], env=environment, stderr=out) as service:
        try:
            end = time.monotonic() + PATIENCE_SECONDS
            while not (told := [record for record in asyncio.run(read_retraining(settings, topic_prefix)) if record.step == "skipped"]):
                assert time.monotonic() < end, log.read_text()
                assert service.poll() is None, log.read_text()
                time.sleep(0.2)
            port = re.findall(r'"port":(\d+)', log.read_text())[0]
            assert get(f"http://127.0.0.1:{port}/health/ready").status_code == 200
        finally:
            service.kill()
    assert [record.reason for record in told] == ["no version of it serves: run: tidemill train late"]


async def test_a_learner_that_learns_no_more_is_told_while_a_run_is_open(
    kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line's first snapshot may be judged for weeks: whoever waits for its end would hear it then. It is told once a run."""
    (tmp_path / "project.py").write_text(PROJECT.format(name=topic_prefix, every=60))
    project, settings = load_project(tmp_path), KafkaSettings(bootstrap_servers=kafka)
    await ensure_topics(settings, topic_specs(project))
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "TIDEMILL_PROJECT": str(tmp_path),
        "TIDEMILL_OFFLINE": str(tmp_path / "lake"),
        "TIDEMILL_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    loop = OnlineLoop(project, project.models["late"], RetrainingSettings.load(), HealthBoard())
    async with Logs(settings, topic_prefix, "late") as logs:
        loop._logs, loop._clock = logs, MachineClock()
        logs.deployments["late"] = DeploymentRecord("late", "v1", "models/late/v1", "", 1)
        await logs.append(step("begun", 7, 7))
        loop._learning.line, loop._learning.told = "v1", LearnerTold(420, 420, 0, stopped="a snapshot has 65.0 MB, and 64 are allowed")
        await loop._tell_stuck()
        await loop._tell_stuck()
    told = [record.reason for record in await read_retraining(settings, topic_prefix) if record.step == "skipped"]
    assert told == [
        "the learner stands still: a snapshot has 65.0 MB, and 64 are allowed; run: tidemill train late; 420 outcomes are learned, and no more"
    ]
