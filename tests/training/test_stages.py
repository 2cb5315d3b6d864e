"""A run by itself: when a stage is done again, which run is gone on with, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.errors import KafkaUnavailable, OutOfMemory, TidemillError
from tidemill.training.stages.files import RunFiles
from tidemill.training.stages.forms import AS_PICKLE, AS_TEXT, as_json
from tidemill.training.stages.keys import code_digest, file_digests, key_of
from tidemill.training.stages.records import AskedRun, RunRecord, run_name
from tidemill.training.stages.run import Run, lacks_memory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text("a = 1\n")
    return folder


def begin(root: Path, project: Path, asked: AskedRun | None = None, *, new: bool = False) -> Run:
    """A run of the model m."""
    return Run.begin(str(root), "m", str(project), asked or AskedRun(), lambda _: None, new=new)


def counted(run: Run, calls: list[str], name: str = "set", **parameters: Any) -> str:
    """A stage that notes when it is really done."""

    def make() -> str:
        calls.append(name)
        return f"made {len(calls)}"

    return run.stage(name, AS_TEXT, make, str, **parameters).value


def left(run: Run) -> None:
    """As if its process were killed."""
    run.work.release()


def test_a_stage_is_done_once(tmp_path: Path, project: Path) -> None:
    """With the same parameters its output is read; with others, or when its file is damaged, it is made anew."""
    calls = list[str]()
    first = begin(tmp_path, project)
    assert counted(first, calls, a=1) == "made 1"
    left(first)
    again = begin(tmp_path, project)
    assert again.record == first.record
    assert [counted(again, calls, a=1), counted(again, calls, a=2)] == ["made 1", "made 2"]
    (again.work.folder / "set.html").write_text("made ?")
    assert counted(again, calls, a=2) == "made 3"


def test_a_stage_is_done_again_after_one_that_it_reads(tmp_path: Path, project: Path) -> None:
    """Another digest of an input makes another key."""
    calls = list[str]()

    def make() -> str:
        calls.append("fit")
        return "fitted"

    run = begin(tmp_path, project)
    for digest in ("x", "x", "y"):
        run.stage("fit", AS_TEXT, make, str, {"set": digest})
    assert len(calls) == 2


def test_a_run_of_a_moment_goes_on_alone(tmp_path: Path, project: Path) -> None:
    """Who names the moment gets the run of that moment, whatever else could go on; that run is left to be gone on with."""
    other = begin(tmp_path, project)
    left(other)

    def named() -> Run:
        return Run.begin(str(tmp_path), "m", str(project), AskedRun(), lambda _: None, created_ms=5)

    mine = named()
    assert mine.record.run != other.record.run
    left(mine)
    again = named()
    assert again.record == mine.record
    left(again)
    assert begin(tmp_path, project).record == other.record


def test_what_cannot_be_kept_is_made_again(tmp_path: Path, project: Path) -> None:
    """An output that cannot be pickled does not stop the run."""
    run = begin(tmp_path, project)
    values = [run.stage("fit", AS_PICKLE, lambda: lambda: 1, lambda _: "a function").value() for _ in range(2)]
    assert values == [1, 1]
    assert not [*run.work.folder.glob("*.pickle")]


@pytest.mark.parametrize(
    "change",
    [
        lambda project: (project / "project.py").write_text("a = 2\n"),
        lambda project: (project / "project.py").write_text("import other\n"),
    ],
)
def test_other_code_is_another_run(tmp_path: Path, project: Path, change: Callable[[Path], object]) -> None:
    """A run goes on by the code that began it, or not at all."""
    first = begin(tmp_path, project)
    left(first)
    change(project)
    assert begin(tmp_path, project).record.run != first.record.run


def test_which_run_is_gone_on_with(tmp_path: Path, project: Path) -> None:
    """The newest that was asked for the same and that nobody holds; none if a new one is wanted. What others kept for later is deleted."""
    calls = list[str]()
    first = begin(tmp_path, project)
    first.stage("fit", AS_PICKLE, list, str)
    other = begin(tmp_path, project)  # the first is held
    assert other.record.run != first.record.run
    left(first)
    left(other)
    assert begin(tmp_path, project, AskedRun(until_ms=5)).record.until_ms == 5
    assert not (first.work.folder / "fit.pickle").exists()
    newest = begin(tmp_path, project)
    assert newest.record.run == other.record.run
    counted(newest, calls)
    left(newest)
    assert begin(tmp_path, project, new=True).record.run > other.record.run


@pytest.mark.parametrize(
    ("stage", "error", "over"),
    [
        ("fit", TidemillError("no"), True), ("fit", KafkaUnavailable("away"), False), ("deploy", TidemillError("no"), False),
        ("fit", OutOfMemory("none"), False), ("fit", KeyboardInterrupt(), False), ("fit", ZeroDivisionError(), False),
    ],
)  # fmt: skip
def test_how_a_run_ends(tmp_path: Path, project: Path, stage: str, error: BaseException, over: bool) -> None:
    """A refusal before the version is stored ends it; anything else leaves it to be gone on with."""

    def fails() -> str:
        raise error

    with pytest.raises(type(error)), begin(tmp_path, project) as run:
        run.stage(stage, AS_TEXT, fails, str)
    assert ((run.work.folder / "ended.json").exists(), begin(tmp_path, project).record.run != run.record.run) == (over, over)


def test_a_run_at_work_elsewhere_is_told(tmp_path: Path, project: Path) -> None:
    """A second training of a model does not go on with what another process does, and says so."""
    notes = list[str]()
    first = begin(tmp_path, project)
    second = Run.begin(str(tmp_path), "m", str(project), AskedRun(), notes.append)
    assert second.record.run != first.record.run
    assert notes == [f"run {first.record.run} of m is at work in another process; this one does not wait for it"]


def test_what_says_that_there_is_no_memory() -> None:
    """Python's error, one that it caused, and the words of libraries in C++; nothing else."""
    caused = TidemillError("cannot be fitted")
    caused.__cause__ = MemoryError()
    assert all(map(lacks_memory, (MemoryError(), caused, RuntimeError("std::bad_alloc"), OSError("[Errno 12] Cannot allocate memory"))))
    assert not any(map(lacks_memory, (ValueError("memory"), None)))


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    """A part that a crash left is not read; one process holds a folder."""
    files = RunFiles(tmp_path / "a" / "run")
    assert (files.make("x"), RunFiles(tmp_path / "a" / "run").make("x")) == (True, False)
    files.write("x", b"1")
    (files.folder / "x.part").write_bytes(b"2")
    assert (files.read("x"), files.read("y")) == (b"1", None)
    other = RunFiles(files.folder)
    assert not other.hold()
    files.release()
    assert other.hold()
    files.remove("x")
    files.remove("x")
    assert files.read("x") is None


def test_a_folder_is_taken_over_until_its_maker_wrote(tmp_path: Path, project: Path) -> None:
    """Who was ended before it wrote anything leaves its name to the next; what was written is never taken over."""
    files = RunFiles(tmp_path / "training" / "m" / run_name(5))
    assert files.make("run.json")
    files.release()
    run = Run.begin(str(tmp_path), "m", str(project), AskedRun(), lambda _: None, created_ms=5)
    assert (run.record.run, RunFiles(files.folder).make("run.json")) == (run_name(5), False)
    run.trained("v")
    run.work.release()
    assert not RunFiles(files.folder).make("run.json")
    assert Run.begin(str(tmp_path), "m", str(project), AskedRun(), lambda _: None, created_ms=5).record.run == run_name(6)


def test_the_files_of_a_project(project: Path) -> None:
    """Those that the project's file imports, wherever it does so, and what these import; no other file beside it."""
    (project / "project.py").write_text("import model\ndef f():\n    from parts.more import g\n")
    (project / "model.py").write_text("from helpers import h\n")
    (project / "helpers.py").write_text("import project\n")
    (project / "scratch.py").write_text("import model\n")
    (project / "parts").mkdir()
    (project / "parts" / "more.py").write_text("this is no python")
    assert [*file_digests(str(project))] == ["helpers.py", "model.py", "parts/more.py", "project.py"]
    before = code_digest(str(project))
    (project / "scratch.py").write_text("")
    assert code_digest(str(project)) == before
    (project / "parts" / "more.py").write_text("")
    assert code_digest(str(project)) != before


def test_keys_and_forms(project: Path) -> None:
    """Equal things have equal keys, whatever their order; a project may be its folder, its file or a module; JSON comes back as it was."""
    assert key_of("fit", {"a": "1", "b": "2"}, {}, "c", {}) == key_of("fit", {"b": "2", "a": "1"}, {}, "c", {})
    assert key_of("fit", {}, {}, "c", {}) != key_of("set", {}, {}, "c", {})
    assert code_digest(str(project)) == code_digest(str(project / "project.py")) != code_digest("json")
    record = RunRecord("m", "r", 1, 2, 3, AskedRun(labels="x"), "c", {"numpy": "2"})
    form = as_json(RunRecord)
    content = form.write(record)
    assert content is not None
    assert form.read(content) == record
