"""History into the archive: each file once, whatever happens meanwhile; and what is trained on it."""

from __future__ import annotations

import math
import os
import random
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.archive.hires import FOLDER, hires, oracle, write
from tests.archive.trips import NOW_MS
from typer.testing import CliRunner

from tidemill.archive.columns import table_schema
from tidemill.archive.erasure import Wanted, erase
from tidemill.archive.file_rules import FileRules
from tidemill.archive.files import HistoryFile, history_files
from tidemill.archive.load import Load, LoadReport
from tidemill.archive.reading import read_events
from tidemill.archive.taking import RefusedRow
from tidemill.cli import app
from tidemill.declarations import Event
from tidemill.declarations.project import Project, load_project
from tidemill.errors import TidemillError, UnusableFile
from tidemill.offline.store import OfflineStore
from tidemill.training.dataset import build
from tidemill.training.version import make_version
from tidemill.verify.checks import archived, check_training_set, view_archive
from tidemill.verify.labels import question_fields

EVENT = Event("trips", {"at": int, "id": str | None, "fare": float}, time="at", id="id")
PROJECT = Project("p", {"trips": EVENT}, {}, {})
ROOT = Path(__file__).parents[2]
SMALL = "import tidemill.archive.files as f, tidemill.archive.load as l; f._BATCH_ROWS = l.COMMIT_ROWS = 200; from tidemill.cli import main; main()"


def load(store: OfflineStore, path: Path, reading: FileRules | None = None, *, event: Event = EVENT) -> tuple[LoadReport, list[RefusedRow]]:
    """Loads one file."""
    refused: list[RefusedRow] = []

    def note(_: HistoryFile, row: RefusedRow) -> None:
        refused.append(row)

    job, files = Load(PROJECT, event, store, reading or FileRules(), note), history_files([path])
    job.check(files)
    return job.run(files[0], lambda rows, share: None), refused


def ids(store: OfflineStore) -> list[str]:
    """The ids in the archive."""
    found: list[str] = read_events(store, EVENT, ["fare"])["_id"].to_pylist()
    return found


def trips(path: Path, numbers: range) -> Path:
    """A Parquet file of trips."""
    columns = {"at": [NOW_MS - number for number in numbers], "id": [f"t{number}" for number in numbers], "fare": [0.5] * len(numbers)}
    pq.write_table(pa.table(columns), path)
    return path


def test_a_file_of_which_nothing_was_taken_is_read_again(tmp_path: Path) -> None:
    """The declaration may have been wrong: once it is mended, the same file is loaded."""
    store, path = OfflineStore(tmp_path / "store"), tmp_path / "a.csv"
    path.write_text(f"at,id,fare\n{NOW_MS},t1,\n{NOW_MS},t2,\n")
    first, refused = load(store, path)
    assert (first.loaded, first.nothing_taken, len(refused)) == (0, True, 2)
    mended = Event("trips", {"at": int, "id": str | None, "fare": float | None}, time="at", id="id")
    second, refused = load(store, path, event=mended)
    assert (second.loaded, second.nothing_taken, refused) == (2, False, [])
    assert load(store, path, event=mended)[0].done_ms


def test_a_file_is_loaded_once(tmp_path: Path) -> None:
    """Again, under another name, with other options: nothing more is written. Rows of another file with known ids are passed over."""
    store = OfflineStore(tmp_path / "store")
    first, _ = load(store, trips(tmp_path / "a.parquet", range(50)))
    assert (first.loaded, first.done_ms) == (50, 0)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    again, _ = load(store, tmp_path / "b.parquet")
    assert again.loaded == 0
    assert again.done_ms
    with pytest.raises(UnusableFile, match="loaded with other options"):
        load(store, tmp_path / "a.parquet", FileRules(known_after_ms=5))
    more, _ = load(store, trips(tmp_path / "c.parquet", range(40, 60)))
    assert (more.loaded, more.copies) == (10, 10)
    assert sorted(ids(store)) == sorted(f"t{number}" for number in range(60))


def test_after_an_erasure(tmp_path: Path) -> None:
    """The rewritten files tell which ids are there; the erased one may come again."""
    store = OfflineStore(tmp_path / "store")
    load(store, trips(tmp_path / "a.parquet", range(50)))
    assert erase(store, Wanted(EVENT, "id", "t41")) == 1
    more, _ = load(store, trips(tmp_path / "c.parquet", range(40, 60)))
    assert (more.loaded, more.copies) == (11, 9)


def test_rows_without_an_id(tmp_path: Path) -> None:
    """Equal rows of a file are all there; a second file with the same rows adds none, one with one more adds that."""
    store = OfflineStore(tmp_path / "store")
    (tmp_path / "a.csv").write_text(f"at,fare\n{NOW_MS},1\n{NOW_MS},1\n{NOW_MS},2\n")
    (tmp_path / "b.jsonl").write_text(f'{{"at":{NOW_MS},"fare":1.0}}\n' * 3)
    assert load(store, tmp_path / "a.csv")[0].loaded == 3
    second, _ = load(store, tmp_path / "b.jsonl")
    assert (second.loaded, second.copies) == (1, 2)
    assert len(set(ids(store))) == 4


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """kill -9 in the middle, again and again; the run after that loads what is left, and each row is there once."""
    (tmp_path / "project.py").write_text(
        "import tidemill as tm\n\n"
        'trips = tm.Event("trips", {"at": int, "id": str | None, "fare": float}, time="at", id="id")\n'
        'fares = tm.FeatureView("fares", trips, "id", [tm.count()], windows=["1h"])\n'
    )
    trips(tmp_path / "a.parquet", range(8000))
    environment = {**os.environ, "TIDEMILL_OFFLINE": str(tmp_path / "store")}
    command = [sys.executable, "-c", SMALL, "--project", str(tmp_path), "load", "trips", str(tmp_path / "a.parquet")]
    store, draw, done = OfflineStore(tmp_path / "store"), random.Random(4), 0
    for _ in range(3):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        want, until = done + draw.randrange(1, 1800), time.monotonic() + 180
        while (done := rows_done(store)) < want and child.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.05)
        child.kill()
        child.wait()
    assert rows_done(store) > 0
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert child.returncode == 0 or "rows were done before" in finished.stdout  # a machine that looks seldom may let it end
    assert sorted(ids(store)) == sorted(f"t{number}" for number in range(8000))


def rows_done(store: OfflineStore) -> int:
    """How many rows the table has."""
    try:
        return len(store.snapshot("events/trips").scan(["_offset"], order=()))
    except TidemillError:
        return 0


def test_two_loads_of_one_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them may fail and say why; each row is there once."""
    monkeypatch.setattr("tidemill.archive.files._BATCH_ROWS", 200)
    monkeypatch.setattr("tidemill.archive.load.COMMIT_ROWS", 200)
    path, store, told = trips(tmp_path / "a.parquet", range(3000)), OfflineStore(tmp_path / "store"), list[str]()
    store.counted_table("events/trips", table_schema(EVENT)).open()

    def run() -> None:
        try:
            load(OfflineStore(tmp_path / "store"), path)
        except TidemillError as error:
            told.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another `tidemill load` is loading this content" in text for text in told)
    assert sorted(ids(store)) == sorted(f"t{number}" for number in range(3000))


@pytest.mark.slow
def test_beside_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive's writer appends to the table meanwhile: both are there once."""
    monkeypatch.setattr("tidemill.archive.files._BATCH_ROWS", 200)
    monkeypatch.setattr("tidemill.archive.load.COMMIT_ROWS", 200)
    path, store, ended = trips(tmp_path / "a.parquet", range(3000)), OfflineStore(tmp_path / "store"), threading.Event()
    table, written = store.counted_table("events/trips", table_schema(EVENT)), 0

    def run_load() -> None:
        load(OfflineStore(tmp_path / "store"), path)
        ended.set()

    loading = threading.Thread(target=run_load)
    table.open()
    loading.start()
    while not ended.is_set():
        live = {
            "_topic": "trips",
            "_partition": 1,
            "_offset": written,
            "_known": NOW_MS * 1000,
            "_time": NOW_MS * 1000,
            "_id": f"l{written}",
        }
        table.append(pa.Table.from_pylist([live], table.schema), {"trips-1": (written, written + 1)})
        written += 1
    loading.join()
    assert written > 1
    assert sorted(ids(store)) == sorted([f"t{number}" for number in range(3000)] + [f"l{number}" for number in range(written)])


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """The command, with the tests' project; what it printed, in lines that are not cut."""
    environment = {"TIDEMILL_OFFLINE": str(folder / "store"), "COLUMNS": "250"}
    result = CliRunner(env=environment).invoke(app, ["--project", str(FOLDER), "load", *arguments])
    return result.exit_code, result.output + (str(result.exception) if result.exception else "")


HIRED = ["--rename", "started_at=at", "--rename", "ride_id=hire", "--timezone", "America/New_York"]
RETURNED = ["--rename", "ended_at=at", "--rename", "ride_id=hire", "--timezone", "America/New_York"]


def test_the_command(tmp_path: Path) -> None:
    """What was refused is told with its line, and written to a file; with --strict nothing is loaded then."""
    write(tmp_path, hires(20))
    with (tmp_path / "hired.csv").open("a") as file:
        file.write("2024-03-10 02:30:00,r98,süd,true,,1\n2024-03-02 10:00:00,r99,süd,perhaps,,1\n")
    code, told = run(tmp_path, "hired", str(tmp_path / "hired.csv"), *HIRED, "--strict")
    assert code
    assert "nothing was loaded: 2 rows are refused" in told
    code, told = run(tmp_path, "hired", str(tmp_path / "hired.csv"), *HIRED, "--refused", str(tmp_path / "bad.csv"))
    assert (code, "20 events loaded" in told, "hired.csv:22" in told, "hired.csv:23" in told) == (0, True, True, True), told
    assert "Served values have it after `tidemill apply`" in told
    assert [line.split(",")[2:6] for line in (tmp_path / "bad.csv").read_text().splitlines()[1:]] == [
        ["22", "started_at", "2024-03-10 02:30:00", "bad_time"],
        ["23", "member", "perhaps", "wrong_type"],
    ]
    assert "load them as a file of their own" in told
    code, told = run(tmp_path, "hired", str(tmp_path / "hired.csv"), *HIRED)
    assert (code, "already loaded, 20 events" in told) == (0, True), told
    (tmp_path / "bad.csv").write_text((tmp_path / "hired.csv").read_text().splitlines()[0] + "\n2024-03-02 10:00:00,r99,süd,perhaps,,1\n")
    code, told = run(tmp_path, "hired", str(tmp_path / "bad.csv"), *HIRED)
    assert (code, "all rows of a file are refused" in told) == (1, True), told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hirde", "hired.csv"], "hirde"),
        (["hired", "hired.csv"], "name the column of a field with --rename COLUMN=FIELD"),
        (["hired", "none.csv"], "does not exist"),
        (["hired", "hired.csv", "--known", "x", "--known-after", "5m"], "give one of them"),
        (["hired", "hired.csv", "--known-after", "soon"], "--known-after"),
        (["hired", "hired.csv", "--unit", "h"], "is no unit"),
        (["hired", "hired.csv", "--rename", "x"], "is not COLUMN=FIELD"),
        (["hired", "hired.csv", "--rename", "a=at", "--rename", "b=at"], "two columns"),
        (["hired", "hired.csv", *HIRED[:4], "--timezone", "Mars"], "no time zone"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], told: str) -> None:
    """Each mistake is named."""
    write(tmp_path, hires(3))
    code, output = run(tmp_path, *(str(tmp_path / word) if word.endswith(".csv") else word for word in arguments))
    assert code
    assert told in output


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path) -> None:
    """The page's commands, each in a process of its own: all events are loaded, known when the option says."""
    write(tmp_path, hires(30))
    page = (ROOT / "docs/events.md").read_text()
    found = re.search(r"<!-- load -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert found
    environment = {**os.environ, "TIDEMILL_OFFLINE": str(tmp_path / "store"), "TIDEMILL_PROJECT": str(FOLDER)}
    for line in found[1].splitlines():
        program, *arguments = shlex.split(line)
        assert program == "tidemill"
        command = [sys.executable, "-c", "from tidemill.cli import main; main()", *arguments]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "30 events loaded" in done.stdout
    returned = read_events(OfflineStore(tmp_path / "store"), load_project(FOLDER).events["returned"], [])
    assert {known - at for known, at in zip(returned["_known"].to_pylist(), returned["_time"].to_pylist(), strict=True)} == {300_000}


def test_training_on_loaded_history(tmp_path: Path) -> None:
    """No service runs: two CSV files become a training set that equals plain Python, a model, and no difference for SQL."""
    rows = hires(400)
    write(tmp_path, rows)
    assert run(tmp_path, "hired", str(tmp_path / "hired.csv"), *HIRED)[0] == 0
    assert run(tmp_path, "returned", str(tmp_path / "returned.csv"), *RETURNED)[0] == 0
    project, store, until_ms = load_project(FOLDER), OfflineStore(tmp_path / "store"), NOW_MS + 86_400_000 * 365
    model = project.models["long_hire"]
    examples = build(project, None, model, store, until_ms, lambda _: None)
    examples.write(tmp_path / "set.parquet")
    expected = oracle(rows)
    found = pq.read_table(tmp_path / "set.parquet").to_pylist()
    assert {row["subject"] for row in found} == expected.keys()
    for row in found:
        truth = expected[row["subject"]]
        assert (row["time"], row["label"], row["member"]) == (truth["at"], truth["label"], truth["member"])
        assert_window(row, truth)
    views = {view.name: view_archive(store, view) for view in model.views}
    asking = archived(store, model.on, question_fields(model)), archived(store, model.outcome.source, ["hire", "minutes"])
    compared = check_training_set(model, pq.read_table(tmp_path / "set.parquet"), asking, views, until_ms, 400, 0)
    assert sum(each.values for each in compared) > 1000
    assert [example for each in compared for example in each.examples] == []
    assert make_version(model, examples, until_ms, lambda _: None).artifact.manifest.inputs


def assert_window(row: dict[str, Any], truth: dict[str, Any]) -> None:
    """Count and mean of two hours and a day. The edge of a window is that of a tile: the count lies between those of both ends of the tile."""
    for name, hours in (("2h", 2), ("1d", 24)):
        ages = [((truth["at"] - hire.end).total_seconds() / 3600, hire.minutes) for hire in truth["back"]]
        tile = hours / 12
        inner, outer = ([minutes for age, minutes in ages if age < edge] for edge in (hours - tile, hours + tile))
        count, mean = row[f"stations__count_{name}"], row[f"stations__mean_minutes_{name}"]
        assert len(inner) <= (count or 0) <= len(outer)
        if len(inner) == len(outer) and inner:
            assert math.isclose(mean, fmean(inner), rel_tol=1e-6)
