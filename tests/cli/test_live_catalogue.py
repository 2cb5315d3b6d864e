"""The whole way of a changed view, as a user goes it: history from a file, a running stack, a feature that is added while events arrive, and
a model that was trained before. The tests are its steps: each begins where the one before it ended."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests.ask import get as ask
from tests.ask import post
from tests.beside import repeated
from tests.cli.living import PATIENCE_SECONDS, Living

from tidemill.clock import now_ms
from tidemill.declarations import FeatureView
from tidemill.kafka.admin import admin
from tidemill.names import LogName
from tidemill.offline.names import view_folder
from tidemill.offline.store import OfflineStore
from tidemill.online.keys import hash_tag
from tidemill.proof.replay import logged
from tidemill.streams.catalogue_log import read_definitions

pytestmark = pytest.mark.integration
DAY_MS = 86_400_000
ZONES = "abcde"
PROJECT = """
from tidemill import Event, FeatureView, Model, Outcome, count, max, mean, sum

PROJECT = "town"
trip = Event("trip", {"trip": str, "at": int, "zone": str, "miles": float}, "at", id="trip", partitions=2)
paid = Event("paid", {"trip": str, "at": int, "tipped": bool}, "at", id="trip", partitions=1)
zones = FeatureView("zones", trip, "zone", [count(), sum("miles")], windows=["6h", "7d"], partitions=2, description="Trips by zone")

def pipeline():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), LogisticRegression())

tips = Model("tips", trip, "at", "trip", [zones], Outcome(paid, "tipped", "trip", within="1h"), pipeline)
"""
UNAPPLIED = "project.py differs from what is in force: run tidemill plan"


class Town(Living):
    """A project with trips in five zones, and the raw events of both ways into it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "town", PROJECT, "zone", ZONES)
        self.predicted = 0

    def add(self, at_ms: int) -> dict[str, Any]:
        """A new event; quarters have exact sums in any order. Its tip is declared later."""
        tip = random.choice([None, random.randrange(40) / 4])
        miles = random.randrange(80) / 4
        self.raw.append({"trip": f"r{len(self.raw)}", "at": at_ms, "zone": random.choice(ZONES), "miles": miles, "tip": tip})
        return self.raw[-1]

    def write_history(self, events: int) -> tuple[Path, Path]:
        """Some trips of the last two days, and what was paid for them, in CSV files."""
        begin = now_ms() - 2 * DAY_MS
        trips = [self.add(begin + n * (2 * DAY_MS // events)) for n in range(events)]
        paid = [{"trip": row["trip"], "at": row["at"] + 1000, "tipped": row["tip"] is not None} for row in trips]
        for name, rows in (("trips", trips), ("paid", paid)):
            with (self.folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        return self.folder / "trips.csv", self.folder / "paid.csv"

    def post(self, events: int) -> None:
        """Publish new events over HTTP. Each request must be answered, whatever happens meanwhile."""
        body = [{"type": "trip", "data": self.add(now_ms())} for _ in range(events)]
        answer = post(f"{self.at.urls['ingestion']}/events", json=body, timeout=180)
        assert answer.status_code == httpx.codes.OK, answer.text

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Events arrive inside `with`, twenty at a time."""
        with repeated((lambda _: self.post(20), 0.1)):
            yield

    def train(self) -> str:
        """Train and deploy the model; its version, once it serves."""
        (version,) = re.findall(r"^tips (\S+): ", self.run("train", "tips"), re.MULTILINE)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ask(f"{self.at.urls['inference']}/v2/models/tips/versions/{version}/ready").is_error:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return str(version)

    def predict(self) -> None:
        """Ask for a prediction of each zone."""
        instances = [{"id": f"p{self.predicted + n}", "entities": {"zone": zone}} for n, zone in enumerate(ZONES)]
        answer = post(f"{self.at.urls['inference']}/predict/tips", json={"instances": instances}, timeout=180)
        assert answer.status_code == httpx.codes.OK, answer.text
        self.predicted += len(instances)

    def replay(self) -> str:
        """What `tidemill replay` says of all predictions."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(logged(OfflineStore(self.at.offline))) < self.predicted:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return self.run("replay")

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


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town whose history is loaded, with its stack; it is stopped at the end."""
    made = Town(tmp_path_factory.mktemp("town"))
    try:
        trips, paid = made.write_history(500)
        assert "500 events loaded" in made.run("load", "trip", str(trips))
        assert "500 events loaded" in made.run("load", "paid", str(paid))
        made.run("up", "--detach", "--timeout-seconds", str(PATIENCE_SECONDS))
        yield made
    finally:
        made.run("down")


@pytest.fixture(scope="module")
def before(town: Town) -> FeatureView:
    """The view as it was declared first."""
    return town.view("zones")


def test_history_and_live_events(town: Town, before: FeatureView) -> None:
    """Both are served as plain Python says; a model is trained on the history, and predicts. Descriptions are served."""
    town.serves_all("zones", before)
    with town.traffic():
        time.sleep(3)
    town.serves_all("zones", before)
    in_force, numbers, _ = town.versions()
    assert (in_force, numbers) == ({"zones": 1}, [1])
    assert ask(f"{town.at.urls['serving']}/features").json()["views"][0]["description"] == "Trips by zone"
    town.train()
    town.predict()


def test_a_changed_file_changes_nothing_yet(town: Town, before: FeatureView) -> None:
    """Each command works by what is in force, and says that the file differs. Nothing is trained on something else than what is declared. The
    plan says what it costs, and what becomes of values."""
    town.declare('"miles": float', '"miles": float, "tip": float | None')
    town.declare('sum("miles")]', 'sum("miles"), mean("tip"), max("tip")]')
    for command in (["explain", "zones", "a"], ["rebuild", "zones", "--partition", "0"], ["erase", "trip", "trip=none"]):
        assert UNAPPLIED in town.run(*command)
    audited = town.run("audit")
    assert UNAPPLIED in audited
    assert "zones: 5 entities\n" in audited
    assert " values compared, 0 differ" in audited
    refused = town.run("train", "tips", code=1)
    assert "model 'tips' is not in force as it is declared: view zones is changed in project.py" in refused
    assert "run: tidemill apply" in refused
    assert "another partition count is another version" in town.run("repartition", "zones", code=1)
    planned = town.run("plan")
    assert re.search(r"version 2 is filled: [\d,]+ archived events to fold, .*; filling takes about \d+ s \(an estimate", planned)
    assert re.search(r"zone [a-e] now: .*mean_tip_6h \(none\) -> ", planned)
    town.serves_all("zones", before)


def test_a_feature_is_added_while_events_arrive(town: Town, before: FeatureView) -> None:
    """Both versions serve all events as plain Python says."""
    after = town.view("zones")
    with town.traffic():
        time.sleep(1)
        assert "in force, as number" in town.run("apply", "--yes")
        time.sleep(2)
    in_force, numbers, _ = town.versions()
    assert (in_force, numbers) == ({"zones": 2}, [1, 2])
    town.serves_all("zones@v1", before)
    town.serves_all("zones@v2", after)
    town.serves_all("zones", after)
    assert UNAPPLIED not in town.run("explain", "zones", "a")


def test_who_reads_a_version_keeps_it(town: Town, before: FeatureView) -> None:
    """First the deployed model; then, when a newer one serves, the predictions that wait for their outcome. All of them replay."""
    town.predict()
    said = town.run("prune", "--yes")
    assert re.search(r"zones@v1 stays: champion \d+T\d+ of model tips reads it", said)
    assert "nothing to delete" in said
    town.train()
    town.predict()
    said = town.run("prune", "--yes")
    assert re.search(r"zones@v1 stays: 10 predictions of model tips read it, and wait for outcomes until", said)
    assert "champion" not in said
    assert "nothing to delete" in said
    assert "15 predictions recomputed, 15 equal bit for bit" in town.replay()
    verified = town.run("verify", "--view", "zones@v1", "--sample", "20")
    assert "values compared, 0 differ" in verified
    assert re.search(r"logged: tips, zones@v1", verified)
    town.serves_all("zones@v1", before)


def test_a_model_that_is_gone(town: Town) -> None:
    """Its predictions replay all the same."""
    text = (town.folder / "town" / "project.py").read_text()
    town.declare(text[text.index("tips = Model") :], "")
    assert "- model tips: gone" in town.run("apply", "--yes")
    assert "15 predictions recomputed, 15 equal bit for bit" in town.replay()


def test_a_version_is_pruned(town: Town, before: FeatureView) -> None:
    """Nobody reads it any more: nothing of it is left, and predictions that read it are passed over. The new version goes on."""
    after, old_log = town.view("zones"), before.log
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
    replayed = town.replay()
    assert "10 predictions passed over: zones@v1 was pruned" in replayed
    assert "5 predictions recomputed, 5 equal bit for bit" in replayed


def test_what_needs_no_version(town: Town, before: FeatureView) -> None:
    """Values served otherwise are in force at once."""
    town.declare('"7d"]', '"7d"], ttl="30d"')
    assert "served from the tiles that are there" in town.run("apply", "--yes")
    town.serves_all("zones", town.view("zones"))
    assert town.left_of(before.log) == []
    assert "nothing to change" in town.run("plan")
    assert "events too late: 0" in town.run("status")
