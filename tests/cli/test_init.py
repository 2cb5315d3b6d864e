"""`tidemill init`: what it writes, what it refuses, and that every template is a project that runs at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.offline.lake import ROOT
from typer.testing import CliRunner

from tidemill.cli import app, init
from tidemill.cli.init import COMMON, NAME, TEMPLATES, UnknownTemplate, files_of, make_project, templates
from tidemill.declarations.project import load_project
from tidemill.errors import TidemillError

EVERY = ["README.md", "data.py", "docker-compose.yml", "model.py", "project.py", "requirements.txt", "test_project.py"]
RUN = """
import sys, pytest
for folder in sys.argv[1:]:
    here = list(sys.path)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", folder, folder])
    if code:
        sys.exit(f"{folder}: {code}")
    sys.path[:] = here
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]
"""
"""Runs the tests of one project after the other, in one process: scikit-learn is imported once."""


@pytest.mark.parametrize("template", templates())
def test_a_template_makes_a_project(template: str, tmp_path: Path) -> None:
    """Its files are there under the name of the folder, nothing of the template's own name is left, and its declarations load."""
    folder = tmp_path / "our-shop"
    output = CliRunner().invoke(app, ["init", str(folder), "--template", template])
    assert output.exit_code == 0, output.output
    written = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = {path.relative_to(folder).as_posix(): path.read_text() for path in written}
    assert found.keys() >= {*EVERY, ".gitignore", ".github/workflows/ci.yml"}
    assert [name for name, text in found.items() if NAME in text or NAME in name] == []
    project = load_project(folder)
    assert project.name == "our_shop"
    assert all(name.startswith("our_shop.") for name in project.events)
    (model,) = project.models.values()
    assert f"tidemill train {model.name}" in found["README.md"]
    assert all(f"tidemill load {name} history/{name}.jsonl" in found["README.md"] for name in project.events)
    assert len(found["README.md"].splitlines()) < 90


def test_tabular_is_the_default(tmp_path: Path) -> None:
    """Without --template."""
    CliRunner().invoke(app, ["init", str(tmp_path / "one")])
    make_project(tmp_path / "two", "tabular")
    assert list(load_project(tmp_path / "one").models) == list(load_project(tmp_path / "two").models) == ["cancels"]


@pytest.mark.parametrize("name", ["9lives", "class", "a b", "a.b", "ä"])
def test_a_folder_that_names_no_project_is_refused(name: str, tmp_path: Path) -> None:
    """Topics and keys begin with the name; nothing is written."""
    with pytest.raises(TidemillError, match="names no project"):
        make_project(tmp_path / name, "tabular")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    """A folder with a file and a file of the name are refused; a new repository is no obstacle."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "project.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(TidemillError, match="is there already"):
            make_project(tmp_path / name, "tabular")
    assert (tmp_path / "full" / "project.py").read_text() == "mine"
    (tmp_path / "fresh" / ".git").mkdir(parents=True)
    assert Path("project.py") in make_project(tmp_path / "fresh", "tabular")


def test_an_unknown_template_is_told_the_known_ones(tmp_path: Path) -> None:
    """All of them, by name; the common files are none."""
    with pytest.raises(UnknownTemplate, match="unknown template 'video'; known: fraud, image, tabular, text"):
        make_project(tmp_path / "shop", "video")
    with pytest.raises(UnknownTemplate):
        make_project(tmp_path / "shop", COMMON)


def test_a_template_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one needs no line of code; it may replace a common file, names may begin with a dot, and what Python leaves there is passed over."""
    for path, text in (
        (f"{COMMON}/ci.yml", "common"), (f"{COMMON}/dot.env", "dots"), ("voice/ci.yml", "own"), ("voice/dot.a/x.py", NAME),
        ("voice/__pycache__/x.pyc", "left"),
    ):  # fmt: skip
        (tmp_path / "templates" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "templates" / path).write_text(text)
    monkeypatch.setattr(init, "TEMPLATES", tmp_path / "templates")
    assert templates() == ["voice"]
    assert make_project(tmp_path / "made", "voice") == [Path(".a/x.py"), Path(".env"), Path("ci.yml")]
    assert [(tmp_path / "made" / name).read_text() for name in (".a/x.py", ".env", "ci.yml")] == ["made", "dots", "own"]


@pytest.mark.parametrize("template", templates())
def test_the_containers_are_those_of_tidemill(template: str) -> None:
    """The project's file includes the checkout's, by the variables that this reads, and wants no name or port that is taken there."""
    theirs = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    ours = yaml.safe_load(files_of(template)[Path("docker-compose.yml")].read_text())
    (included,) = ours["include"]
    assert included["project_directory"] == "${TIDEMILL_SOURCE}"
    assert re.sub(r"\$\{TIDEMILL_SOURCE:\?[^}]*\}", str(ROOT), included["path"]) == str(ROOT / "docker-compose.yml")
    assert "${TIDEMILL_PROJECT_DIR:-" in (ROOT / "docker-compose.yml").read_text()
    services = ours.get("services", {})
    assert not services.keys() & theirs["services"].keys()
    taken = {port for one in theirs["services"].values() for port in one.get("ports", ())}
    assert not {port.split(":")[0] for one in services.values() for port in one.get("ports", ())} & {port.split(":")[0] for port in taken}
    for service in services.values():
        assert service["build"] | {"context": ""} == {
            "context": "",
            "dockerfile": "infra/docker/Dockerfile",
            "args": {"SERVICE": "inference"},
        }


def test_the_ci_file_runs_what_the_readme_says() -> None:
    """It installs what the project needs, checks the declarations, and runs the tests."""
    for template in templates():
        ci = yaml.safe_load(files_of(template)[Path(".github/workflows/ci.yml")].read_text())
        commands = [step["run"] for step in ci["jobs"]["test"]["steps"] if "run" in step]
        assert commands == ["pip install -r requirements.txt", "tidemill check .", "pytest"]


def test_common_files_have_no_declarations() -> None:
    """What is of a project stands in its template."""
    assert not list((TEMPLATES / COMMON).rglob("*.py"))


@pytest.mark.slow
def test_the_tests_of_every_template_pass(tmp_path: Path) -> None:
    """As `pytest` runs them in a new project; warnings are shown and none is raised by the pipelines."""
    folders = [str(tmp_path / f"my_{template}") for template in templates()]
    for folder, template in zip(folders, templates(), strict=True):
        make_project(Path(folder), template)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT / "services")])}
    done = subprocess.run([sys.executable, "-c", RUN, *folders], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" passed") == len(folders)
    assert "ConvergenceWarning" not in done.stdout


def test_a_project_can_be_moved(tmp_path: Path) -> None:
    """Nothing in it names the folder that it was made in."""
    make_project(tmp_path / "shop", "fraud")
    shutil.move(tmp_path / "shop", tmp_path / "elsewhere")
    assert load_project(tmp_path / "elsewhere").name == "shop"
