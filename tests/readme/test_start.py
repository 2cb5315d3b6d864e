"""The way from a CSV file to a live prediction, as docs/start.md describes it, line by line; plain Python says what has to come out."""

from __future__ import annotations

import csv
import math
import os
import random
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.ask import post
from tests.oracles import expected, in_window
from tests.shell_lines import printed

from tidemill.clock import now_ms
from tidemill.declarations.project import load_project
from tidemill.local.addresses import Addresses, find

pytestmark = [pytest.mark.integration, pytest.mark.last]
ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"<!-- shop -->\n```sh\n(.*?)```", (ROOT / "docs/start.md").read_text(), re.DOTALL)
PATIENCE_SECONDS = 300


class Reader:
    """Somebody who reads the page, in a folder with the examples. `bought`: customer -> (ms, dollars) of each purchase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        paths = os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services")))
        self.environment = {**os.environ, "PYTHONPATH": paths, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.bought: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def does(self, line: str) -> str:
        """What a line of the page prints."""
        command = line.partition("  #")[0].strip()
        if command.startswith("export "):
            self.environment |= dict(word.split("=") for word in command.split()[1:])
            return ""
        if assigned := re.match(r"(\w+)=\$\(", command):
            self.environment[assigned[1]] = printed(
                f"{command}; echo ${assigned[1]}", self.folder, self.environment, PATIENCE_SECONDS
            ).strip()
            return ""
        return printed(command, self.folder, self.environment, PATIENCE_SECONDS)

    @property
    def at(self) -> Addresses:
        """Where the stack is."""
        found = find(self.folder / self.environment["TIDEMILL_HOME"])
        assert found is not None
        return found

    def sees_right_values(self, draw: random.Random) -> None:
        """Asserts that what is served of some customers is what the purchases say."""
        view = load_project(self.folder / "examples/shop").views["customers"]
        customers, at = [*draw.sample(sorted(self.bought), 40), "c4"], now_ms()
        body = {"features": [f"customers:{feature.name}" for feature in view.served], "entities": {"customer": customers}, "as_of": at}
        answer = post(f"{self.at.urls['serving']}/get-online-features", json=body, timeout=180).json()
        for name, column in zip(answer["metadata"]["feature_names"], answer["results"], strict=True):
            feature = next((feature for feature in view.served if feature.name == name), None)
            if feature is not None:
                values = [
                    [(ms, dollars if feature.aggregation.column else None) for ms, dollars in self.bought[customer]]
                    for customer in customers
                ]
                right = [expected(feature.aggregation, in_window(feature, events, at), at) for events in values]
                served = [math.nan if value is None else value for value in column["values"]]  # JSON has null for no value
                assert served == pytest.approx(right, rel=1e-12, nan_ok=True), name


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader; what is started is stopped."""
    made = Reader(tmp_path)
    yield made
    if find(tmp_path / made.environment.get("TIDEMILL_HOME", "none")):
        made.does("tidemill down")


def test_from_a_file_to_a_live_prediction(reader: Reader) -> None:
    """Each line of the page works, and every value on the way is what the file and the published purchase say."""
    history, live, change = ([line for line in block.splitlines() if line] for block in BLOCKS)
    draw = random.Random(3)
    printed = "".join(map(reader.does, history))
    assert "69,659 events loaded" in printed
    assert "deployed" in printed
    with (reader.folder / "history.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            day = datetime.fromisoformat(row["day"]).replace(tzinfo=UTC)
            reader.bought[row["customer"]].append((int(day.timestamp() * 1000), float(row["dollars"])))
    reader.sees_right_values(draw)

    reader.environment |= {name.upper(): reader.at.urls[name] for name in ("ingestion", "inference", "serving")}
    _, asked, published, _, served = map(reader.does, live)
    answer: dict[str, Any] = msgspec.json.decode(asked)
    before = reader.bought["c4"]
    assert answer["features"]["customers__age"]["value"] == (answer["time"] - max(before)[0]) / 1000
    assert answer["features"]["customers__count_30d"]["value"] == 0  # his last purchase is half a year old
    assert 0 < answer["probability"] < 1
    assert msgspec.json.decode(published)["accepted"] == 1
    assert [column["values"] for column in msgspec.json.decode(served)["results"]] == [["c4"], [1.0], [41.5]]
    before.append((answer["time"], 41.5))
    reader.sees_right_values(draw)

    printed = "".join(map(reader.does, change[:-1]))
    assert "69,660 archived events to fold" in printed
    assert re.search(r"[1-9][0-9,]* values compared, 0 differ", printed)
    assert "1 predictions of model returns read it, and wait for outcomes until" in printed
    assert "customers__max_dollars_30d" in msgspec.json.decode(reader.does(live[1]))["features"]
    reader.sees_right_values(draw)
    assert change[-1] == "tidemill down"
    reader.does(change[-1])
