"""The whole way of a changed view, as a user goes it: history from a file, a running stack, a feature that is added while events arrive."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests.offline.lake import ROOT
from tests.oracles import expected, in_window

from tidemill.clock import now_ms
from tidemill.declarations import FeatureView
from tidemill.declarations.project import load_project
from tidemill.kafka.admin import admin
from tidemill.local.addresses import Addresses, find
from tidemill.names import LogName
from tidemill.offline.names import view_folder
from tidemill.online.keys import hash_tag
from tidemill.runtime.settings import KafkaSettings
from tidemill.streams.catalogue_log import read_definitions

pytestmark = pytest.mark.integration
TIDEMILL = [sys.executable, "-c", "from tidemill.cli import main; main()"]
PATIENCE_SECONDS = 180
DAY_MS = 86_400_000
ZONES = "abcde"
PROJECT = """
from tidemill import Event, FeatureView, count, max, mean, sum

PROJECT = "town"
trip = Event("trip", {"trip": str, "at": int, "zone": str, "miles": float}, "at", id="trip", partitions=2)
zones = FeatureView("zones", trip, "zone", [count(), sum("miles")], windows=["6h", "7d"], partitions=2)
"""


class Town:
    """A project in a folder, its stack, and the raw events of both ways into it. `raw`: as plain Python has them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.raw = folder, folder / "home", list[dict[str, Any]]()
        self.environment = {
            **os.environ, "TIDEMILL_HOME": str(self.home), "TIDEMILL_PROJECT": str(folder / "town"), "COLUMNS": "300",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "shared", ROOT / "services"))),
        }  # fmt: skip
        (folder / "town").mkdir()
        (folder / "town" / "project.py").write_text(PROJECT)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints, when it ends with this code."""
        result = subprocess.run(
            [*TIDEMILL, *arguments], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        output = result.stdout + result.stderr
        assert result.returncode == code, output
        assert "Traceback" not in output
        return output

    @property
    def at(self) -> Addresses:
        """Where the stack is."""
        found = find(self.home)
        assert found is not None
        return found

    @property
    def kafka(self) -> KafkaSettings:
        """The broker of the stack."""
        return KafkaSettings(bootstrap_servers=self.at.kafka)

    def add(self, at_ms: int) -> dict[str, Any]:
        """A new event; quarters have exact sums in any order. Its tip is declared later."""
        tip = random.choice([None, random.randrange(40) / 4])
        miles = random.randrange(80) / 4
        self.raw.append({"trip": f"r{len(self.raw)}", "at": at_ms, "zone": random.choice(ZONES), "miles": miles, "tip": tip})
        return self.raw[-1]

    def write_history(self, events: int) -> Path:
        """Some events of the last two days, in a CSV file."""
        path, begin = self.folder / "history.csv", now_ms() - 2 * DAY_MS
        rows = [self.add(begin + n * (2 * DAY_MS // events)) for n in range(events)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return path

    def declare(self, old: str, new: str) -> None:
        """Edit the project."""
        file = self.folder / "town" / "project.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def post(self, events: int) -> None:
        """Publish new events over HTTP. Each request must be answered, whatever happens meanwhile."""
        body = [{"type": "trip", "data": self.add(now_ms())} for _ in range(events)]
        answer = httpx.post(f"{self.at.urls['ingestion']}/events", json=body, timeout=60, trust_env=False)
        assert answer.status_code == httpx.codes.OK, answer.text

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Events arrive inside `with`, twenty at a time."""
        stop, failed = threading.Event(), list[BaseException]()

        def post() -> None:
            try:
                while not stop.wait(0.1):
                    self.post(20)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        for error in failed:
            raise error

    def served(self, name: str, view: FeatureView, time_ms: int) -> dict[str, list[Any]] | str:
        """Feature -> the values of all zones; or why there is no answer."""
        wanted = [f"{name}:{feature.name}" for feature in view.served]
        body = {"features": wanted, "entities": {"zone": list(ZONES)}, "as_of": time_ms}
        answer = httpx.post(f"{self.at.urls['serving']}/get-online-features", json=body, timeout=60, trust_env=False)
        if answer.is_error:
            return answer.text
        found = answer.json()
        names = found["metadata"]["feature_names"]
        return {n: column["values"] for n, column in zip(names, found["results"], strict=True) if n != "zone"}

    def oracle(self, view: FeatureView, time_ms: int) -> dict[str, list[Any]]:
        """What plain Python says of the raw events."""
        found = {}
        for feature in view.served:
            column = feature.aggregation.column
            of_zones = [[(raw["at"], raw[column] if column else None) for raw in self.raw if raw["zone"] == zone] for zone in ZONES]
            found[feature.name] = [expected(feature.aggregation, in_window(feature, events, time_ms), time_ms) for events in of_zones]
        return found

    def serves_all(self, name: str, view: FeatureView) -> None:
        """Assert that soon the served values of all zones are those of plain Python, and stay so."""
        time_ms, deadline = now_ms(), time.monotonic() + PATIENCE_SECONDS
        wanted = self.oracle(view, time_ms)
        while self.served(name, view, time_ms) != wanted and time.monotonic() < deadline:
            time.sleep(0.3)
        assert self.served(name, view, time_ms) == wanted
        time.sleep(1)
        assert self.served(name, view, time_ms) == wanted

    def view(self) -> FeatureView:
        """The view, as it is declared now."""
        return load_project(self.folder / "town").views["zones"]

    def versions(self) -> tuple[dict[str, int], list[int], list[LogName]]:
        """What is in force, the versions of the view, and their logs."""
        now = asyncio.run(read_definitions(self.kafka, "town"))
        return now.in_force, [found.version for found in now.views], [found.log for found in now.views]

    def left_of(self, log: LogName) -> list[str]:
        """What there is of a log: topic, table, keys."""
        with redis.Redis.from_url(self.at.redis_url) as client:
            tags = [hash_tag("town", log, partition) for partition in range(2)]
            keys = [key.decode(errors="replace") for tag in tags for key in client.scan_iter(match=b"*" + tag + b"*")]
        topics = [topic for topic in asyncio.run(self._topics()) if topic == f"town.view.{log}"]
        table = Path(self.at.offline) / view_folder(log)
        return [*topics, *([str(table)] if table.exists() else []), *keys]

    async def _topics(self) -> list[str]:
        async with admin(self.kafka) as client:
            names: list[str] = await client.list_topics()
            return names


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A town without a stack; what it starts is stopped."""
    made = Town(tmp_path)
    yield made
    made.run("down")


def test_a_feature_is_added_while_events_arrive(town: Town) -> None:
    """History from a file and live events are served by the old version and the new one as plain Python says; prune leaves the new one."""
    assert "500 events loaded" in town.run("load", "trip", str(town.write_history(500)))
    town.run("up", "--detach", "--timeout-seconds", str(PATIENCE_SECONDS))
    before = town.view()
    town.serves_all("zones", before)
    with town.traffic():
        time.sleep(3)
    town.serves_all("zones", before)
    in_force, numbers, (old_log,) = town.versions()
    assert (in_force, numbers) == ({"zones": 1}, [1])

    town.declare('"miles": float', '"miles": float, "tip": float | None')
    town.declare('sum("miles")]', 'sum("miles"), mean("tip"), max("tip")]')
    after = town.view()
    with town.traffic():
        time.sleep(1)
        assert "in force, as number" in town.run("apply", "--yes")
        time.sleep(2)
    in_force, numbers, _ = town.versions()
    assert (in_force, numbers) == ({"zones": 2}, [1, 2])
    town.serves_all("zones@v1", before)
    town.serves_all("zones@v2", after)
    town.serves_all("zones", after)

    assert old_log in town.run("prune")
    assert len(town.left_of(old_log)) > 2
    with town.traffic():
        assert "1 deleted" in town.run("prune", "--yes")
        time.sleep(3)
    town.serves_all("zones", after)
    assert town.left_of(old_log) == []
    refused = town.served("zones@v1", before, now_ms())
    assert isinstance(refused, str)
    assert json.loads(refused)["class"] == "FeatureViewNotFoundException"
    assert "nothing to delete" in town.run("prune")

    town.declare('"7d"]', '"7d"], ttl="30d"')
    assert "served from the tiles that are there" in town.run("apply", "--yes")
    town.serves_all("zones", after)
    assert town.left_of(old_log) == []
    assert "nothing to change" in town.run("plan")
    town.run("status")
