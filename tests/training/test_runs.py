"""`tidemill runs`: what was trained here, what was refused, what was ended, and the page that compares."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.killed import CREATED_MS, Ending, context, in_process
from tests.training.town import FOLDER, town
from typer.testing import CliRunner

from tidemill.cli import app
from tidemill.errors import TidemillError
from tidemill.training.stages.files import RunFiles, runs_root
from tidemill.training.stages.reading import NoSuchRun, read_evaluation, read_run, read_runs
from tidemill.training.stages.records import AskedRun, run_name
from tidemill.training.stages.run import Run

FIRST = run_name(CREATED_MS)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An offline store with a whole run, and one that was ended."""
    folder = tmp_path_factory.mktemp("offline")
    town(folder, 60)
    assert in_process(context(), folder, Ending()).code == 0
    assert in_process(context(), folder, Ending(rename=6)).code < 0
    return folder


def said(root: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What a command prints."""
    monkeypatch.setenv("TIDEMILL_OFFLINE", str(root))
    monkeypatch.setenv("TIDEMILL_PROJECT", str(FOLDER))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.chdir(root)
    result = CliRunner().invoke(app, ["runs", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_runs_are_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest first: how each ended, and the metrics of one that was measured."""
    lines = [line for line in said(root, monkeypatch, "list").splitlines() if "big_tip" in line]
    assert ["ended" in lines[0], "trained" in lines[1], "auc" in lines[1], FIRST in lines[1]] == [True] * 4
    assert "big_tip" not in said(root, monkeypatch, "list", "fare")


def test_a_run_is_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stages in order, and the packages."""
    shown = said(root, monkeypatch, "show", f"big_tip@{FIRST}")
    places = [shown.index(f" {stage} ") for stage in ("set", "fit", "evaluate", "export", "report", "store", "deploy", "track")]
    assert places == sorted(places)
    assert "scikit-learn " in shown


def test_runs_are_compared(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The page is written; the stored version is as good as the run, and the same page is beside it."""
    assert "p.html: 1 runs" in said(root, monkeypatch, "compare", f"big_tip@{FIRST}", "--out", str(tmp_path / "p.html")).replace("\n", "")
    page = (tmp_path / "p.html").read_text()
    assert "ROC" in page
    assert page == (root / "models" / "big_tip" / FIRST / "report.html").read_text()
    assert read_evaluation(str(root), "big_tip", FIRST) == read_run(str(root), "big_tip", FIRST).evaluation
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "models").mkdir(parents=True)
    (elsewhere / "models" / "big_tip").symlink_to(root / "models" / "big_tip")
    assert read_evaluation(str(elsewhere), "big_tip", FIRST).version == FIRST


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["show", "big_tip"], r"'big_tip' names no run; write MODEL@RUN"),
        (["show", "big_tip@../x"], r"names no run"),
        (["show", "big_tip@x"], rf"no run x of big_tip is known here; choose one of: \w+, {FIRST}"),
        (["show", "nothing@x"], r"unknown model 'nothing'; known: big_tip, fare"),
        (
            ["compare", "fare@x"],
            r"no run x of fare is known here; make a new version, by the command that `tidemill models list fare` shows",
        ),
        (["compare", f"big_tip@{FIRST}", "--out", "no/such/folder.html"], r"no/such/folder.html cannot be written"),
    ],
)
def test_mistakes_are_told(root: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: str) -> None:
    """With what to write instead."""
    with pytest.raises(TidemillError, match=error):
        said(root, monkeypatch, *arguments)


def test_how_a_run_stands(tmp_path: Path) -> None:
    """One that a process holds is running; one that nobody holds was ended; a record that nobody can read is passed over."""
    run = Run.begin(str(tmp_path), "m", str(FOLDER), AskedRun(), lambda _: None)
    assert [(one.state, one.said) for one in read_runs(str(tmp_path), "m")] == [("running", "between two stages")]
    run.work.release()
    assert read_run(str(tmp_path), "m", run.record.run).state == "ended"
    damaged = RunFiles(runs_root(str(tmp_path)) / "m" / "damaged")
    damaged.make("run.json")
    damaged.write("run.json", b"{")
    assert len(read_runs(str(tmp_path), "m")) == 1
    with pytest.raises(NoSuchRun):
        read_run(str(tmp_path), "m", "damaged")
