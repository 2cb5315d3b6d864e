"""One extra per service: it names what the service imports, and with nothing more the service can be built, installed and loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.infra.extras import declared, guard, installed_with, providers, third_party
from tests.infra.files import IMAGES, ROOT, dockerfile


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_an_extra_names_what_its_service_imports(name: str) -> None:
    """Every package that is imported is named by the base dependencies or the extra, not merely needed by something else."""
    undeclared = {top: sorted(modules) for top, modules in third_party(name).items() if not providers(top) & declared(name)}
    assert undeclared == {}


def test_the_walk_finds_imports() -> None:
    """The walk through the sources reaches what is known to be there, and leaves out what only type checkers see."""
    assert {"faust", "hiredis", "aiokafka", "numpy"} <= third_party("features").keys()
    assert "fastapi" not in third_party("features")
    assert {"sklearn", "skl2onnx", "mlflow"} <= third_party("training").keys()


def test_extras_are_resolved() -> None:
    """Extras of extras count, and what a package needs by itself comes with it without being declared."""
    assert {"fastapi", "hiredis", "deltalake", "onnxruntime"} <= declared("inference")
    assert "onnxruntime" not in declared("serving")
    assert "starlette" in installed_with("serving") - installed_with()


def run(code: str, folder: Path, *roots: Path, **environment: str) -> str:
    """Runs Python in a folder with some roots on its path; returns what it prints."""
    path = os.pathsep.join(str(root) for root in roots)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": path, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_the_guard_can_fail(tmp_path: Path) -> None:
    """With base dependencies alone, one of them can be imported and the package of an extra cannot."""
    run(f"{guard()}\nimport msgspec", tmp_path)
    with pytest.raises(AssertionError, match="does not come with this extra"):
        run(f"{guard()}\nimport pandas", tmp_path)


def test_the_example_needs_base_dependencies_alone(tmp_path: Path) -> None:
    """A service loads the project that compose mounts, in an image that has no model or table library."""
    code = f"{guard()}\nfrom tidemill.declarations.project import load_project; print(len(load_project({str(ROOT / 'examples/flights')!r}).views))"
    assert int(run(code, tmp_path, ROOT / "shared")) > 0


@pytest.mark.integration  # it builds and starts, a few seconds each
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_all_it_needs(name: str, tmp_path: Path) -> None:
    """From what the Dockerfile copies a wheel is built that holds this service alone, and its entry point loads with its extra alone."""
    source, built = tmp_path / "source", tmp_path / "built"
    for path in ("pyproject.toml", "README.md", "shared", f"services/tidemill_{name}"):
        assert path.replace(name, "${SERVICE}").partition("/")[0] in dockerfile()
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / path, source / path)
    run(
        f"import sys; sys.argv = ['hatchling', 'build', '-t', 'wheel', '-d', {str(built)!r}]; from hatchling.cli import hatchling; hatchling()",
        source,
    )
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        tops = {entry.partition("/")[0] for entry in content.namelist()}
        content.extractall(tmp_path / "installed")
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tidemill", f"tidemill_{name}"}
    loaded = f"import importlib; print(importlib.import_module('tidemill_{name}.__main__').__file__)"
    assert Path(run(f"{guard(name)}\n{loaded}", tmp_path, tmp_path / "installed")).is_relative_to(tmp_path)
