"""Every template from `tidemill init` to a prediction over HTTP, by the commands of its own page, on real Kafka, Valkey and services."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.ask import get as ask
from tests.ask import post
from tests.offline.lake import ROOT
from tests.shell_lines import printed
from typer.testing import CliRunner

from tidemill.cli import app
from tidemill.cli.init import make_project
from tidemill.local.addresses import find
from tidemill.local.processes import free_port

pytestmark = pytest.mark.integration
PATIENCE_SECONDS = 600
SERVICES = ("ingestion", "features", "offline", "inference")
ALONE = (
    "pip ",
    "pytest",
    "export ",
    "uvicorn ",
    "docker ",
    "tidemill retrain",
    "tidemill alerts",
    "tidemill down",
    "TIDEMILL_DRIFT_WINDOW",
)
"""Begins lines of a page that other tests run, or that this one runs in its own way."""
NEWEST = {"tabular": 600, "text": 400, "image": 250, "fraud": 10_000}
"""How many events of each file are enough to be trained on."""


class Newcomer:
    """Somebody who follows the page of a new project. The servers are those of the tests, and of the services only those that are needed run."""

    def __init__(self, folder: Path, template: str, kafka: str, redis_url: str) -> None:
        make_project(folder, template)
        self.folder, self.template, self._servers = folder, template, {"KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis_url}
        paths = os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services")))
        self.environment = {
            **os.environ, "PYTHONPATH": paths, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "300",
            "TIDEMILL_PROJECT": str(folder), "TIDEMILL_HOME": str(folder / ".tidemill"),
            "KAFKA_BOOTSTRAP_SERVERS": "", "REDIS_URL": "",
        }  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """The commands of the page, in order."""
        return [
            line
            for block in re.findall(r"```sh\n(.*?)```", (self.folder / "README.md").read_text(), re.DOTALL)
            for line in block.splitlines()
        ]

    @property
    def urls(self) -> dict[str, str]:
        """Where the services are."""
        found = find(self.folder / ".tidemill")
        assert found is not None
        return found.urls

    def does(self, line: str) -> str:
        """What a line prints."""
        line = line.replace("--seconds 120", "--seconds 2 --delay 500ms").replace("after=60s", "after=1s")
        if line.startswith("tidemill load"):
            return self._loads(shlex.split(line)[1:])
        if line.startswith("tidemill up"):
            self.environment |= self._servers
            line += "".join(f" --service {name}" for name in SERVICES)
        said = printed(line, self.folder, self.environment, PATIENCE_SECONDS)
        if line.startswith("python data.py"):
            self._cuts()
        if line.startswith("tidemill up"):
            self.environment |= {"TIDEMILL_OFFLINE": str(self.folder / ".tidemill/offline")}
            self.environment |= {name.upper(): url for name, url in self.urls.items()}
        return said

    def _cuts(self) -> None:
        """Few events are enough here."""
        for path in (self.folder / "history").iterdir():
            path.write_text("".join(path.read_text().splitlines(keepends=True)[-NEWEST[self.template] :]))

    def _loads(self, arguments: list[str]) -> str:
        """In this process, since each of its own would take two seconds to begin."""
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(app, arguments, env=self.environment)
        assert result.exit_code == 0, result.output
        return result.output

    def waits_for(self, model: str) -> None:
        """Until a trained version answers."""
        self.soon(lambda: not ask(f"{self.urls['inference']}/v2/models/{model}/ready").is_error)

    def soon(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def newcomer(request: pytest.FixtureRequest, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> Iterator[Newcomer]:
    """A new project; what was started is stopped."""
    made = Newcomer(tmp_path / topic_prefix, request.param, kafka, redis_url)
    yield made
    if find(made.folder / ".tidemill"):
        made.does("tidemill down")


@pytest.mark.parametrize(
    ("newcomer", "model", "wanted"),
    [
        pytest.param(template, model, wanted, marks=pytest.mark.share(4, place))
        for place, (template, model, wanted) in enumerate(
            [("tabular", "cancels", None), ("text", "team", "delivery"), ("image", "digit", None), ("fraud", "fraud", None)]
        )
    ],
    indirect=["newcomer"],
)
def test_from_init_to_a_prediction(newcomer: Newcomer, model: str, wanted: str | None) -> None:
    """Each line of the page works; the model was trained on the sample data, and answers with the features that were filled from it."""
    lines = [line for line in newcomer.lines if not line.startswith(ALONE)]
    assert [shlex.split(line)[0] for line in lines[:3]] == ["python", "tidemill", "tidemill"]
    answer: dict[str, Any] = {}
    for line in lines:
        if line.startswith("curl"):
            newcomer.waits_for(model)
        printed = newcomer.does(line)
        if line.startswith("tidemill train"):
            assert "deployed" in printed
        if line.startswith("curl"):
            answer = json.loads(printed)
        if line.startswith("tidemill simulate"):
            assert re.match(
                r"[1-9][0-9]* events sent, [1-9][0-9]* of them outcomes; ([1-9][0-9]*) questions asked, \1 answered", printed
            ), printed
            assert f"{model} with drifts: " in printed
    assert "degraded" not in answer
    statuses = {value["status"] for value in answer["features"].values()}
    assert "PRESENT" in statuses
    assert statuses <= {"PRESENT", "NULL_VALUE"}, "known entities, perhaps with no event in a short window"
    if "class" in answer:
        assert answer["class"] == wanted or (wanted is None and answer["probabilities"][answer["class"]] > 0.5)
    else:
        assert 0 < answer["probability"] < 1
    if (newcomer.folder / "app.py").exists():
        _uses_the_page(newcomer)


def _uses_the_page(newcomer: Newcomer) -> None:
    """The page's own line of the README: a picture is asked about, the truth is told, and a picture of another size is refused in words."""
    (line,) = (line for line in newcomer.lines if line.startswith("uvicorn"))
    port = free_port(set())
    command = [sys.executable, "-m", *line.replace("8080", str(port)).split()]
    with subprocess.Popen(command, cwd=newcomer.folder, env=newcomer.environment, stderr=subprocess.DEVNULL) as page:
        try:
            url = f"http://127.0.0.1:{port}"
            newcomer.soon(lambda: _answers(f"{url}/about"))
            assert "<canvas" in ask(url).text
            about = ask(f"{url}/about").json()
            found = post(f"{url}/ask", json={"pixels": [[0.5] * about["side"]] * about["side"]}).json()
            assert sum(found["probabilities"].values()) == pytest.approx(1)
            assert post(f"{url}/tell", json={"picture": found["picture"], "digit": "3"}).json() == {"thanks": True}
            wrong = post(f"{url}/ask", json={"pixels": [[0.5]]})
            assert wrong.status_code == 400
            assert "has not the shape" in wrong.json()["detail"]
        finally:
            page.terminate()


def _answers(url: str) -> bool:
    try:
        return ask(url).is_success
    except httpx.TransportError:
        return False
