"""The wall between services: each imports `tidemill` and itself, `tidemill` imports none of them, and users import only what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.repo.sources import ROOT, SERVICES, imports_of, name_of

HEAVY = ["aiokafka", "deltalake", "fastapi", "faust", "hiredis", "mlflow", "onnxruntime", "pandas", "polars", "pyarrow", "redis", "sklearn"]


def breaches(root: Path) -> list[str]:
    """Every import below `shared` and `services` of a root that goes through the wall."""
    found = []
    for path in sorted([*root.glob("shared/**/*.py"), *root.glob("services/**/*.py")]):
        home = path.relative_to(root).parts[1]
        for name in imports_of(path):
            top = name.split(".")[0]
            if name.startswith(".") or top in ("tests", "examples", "benchmarks") or (top.startswith("tidemill_") and top != home):
                found.append(f"{path.relative_to(root).as_posix()} imports {name}")
    return found


def test_no_import_goes_through_the_wall() -> None:
    """Services meet on Kafka and in the stores, not in code."""
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("shared/tidemill/a.py", "import tidemill_drift", "tidemill_drift"),
        ("shared/tidemill/sub/a.py", "def f():\n    from tidemill_drift.app import run", "tidemill_drift.app"),
        ("services/tidemill_drift/a.py", "from tidemill_predlog import join", "tidemill_predlog"),
        ("services/tidemill_drift/a.py", "from . import app", "."),
        ("services/tidemill_drift/a.py", "import json, tests.conftest", "tests.conftest"),
        ("services/tidemill_drift/a.py", "import json, tidemill.kernel.view, tidemill_drift.app", None),
        ("shared/tidemill/a.py", "import tidemill.errors", None),
    ],
)
def test_the_wall_can_fail(tmp_path: Path, file: str, text: str, breach: str | None) -> None:
    """A breach is found wherever it stands, and what is allowed is not called one."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert breaches(tmp_path) == ([] if breach is None else [f"{file} imports {breach}"])


def test_services_are_found() -> None:
    """The wall has something to stand between."""
    assert len(SERVICES) >= 6


def run_clean(code: str, folder: Path, *more: Path) -> str:
    """Runs Python in a folder with an environment that names nothing but the two roots (and more), warnings being errors."""
    roots = os.pathsep.join(str(root) for root in (ROOT / "shared", ROOT / "services", *more))
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": roots, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


WATCH = """
import importlib, os, sys, threading, warnings
warnings.filterwarnings("default", category=DeprecationWarning)  # what other packages import is their affair
read = []
class Watched(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.endswith(("<frozen os>", "<frozen _collections_abc>", "os.py", "_collections_abc.py")):
            frame = frame.f_back
        if frame.f_code.co_filename.startswith(ours):
            read.append((key, frame.f_code.co_filename))
        return super().__getitem__(key)
os.environ.__class__ = Watched
for name in names:
    importlib.import_module(name)
assert not read, f"the environment was read: {read}"
assert threading.active_count() == 1, f"threads were started: {threading.enumerate()}"
"""


def module_of(path: Path) -> str:
    """The dotted name of a module below one of the two roots."""
    parts = path.relative_to(ROOT).with_suffix("").parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.slow
def test_importing_does_nothing(tmp_path: Path) -> None:
    """Every module can be imported without any setting; none reads one, starts a thread, prints or leaves a file.

    Entry points (`__main__`) are for running.
    """
    shared = (path for path in ROOT.glob("shared/**/*.py") if "templates" not in path.parts)  # projects of users, which are copied
    paths = [*shared, *(path for service in SERVICES for path in service.glob("**/*.py"))]
    names = sorted(module_of(path) for path in paths if path.name != "__main__.py" and "__pycache__" not in path.parts)
    assert len(names) > 50
    ours = tuple(f"{ROOT / folder}{os.sep}" for folder in ("shared", "services"))  # an environment may lie inside the checkout
    assert run_clean(f"ours, names = {ours!r}, {names!r}\n{WATCH}", tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("import os; os.environ.get('HOME')", "the environment was read"),
        ("import os; os.getenv('HOME')", "the environment was read"),
        ("import os; os.environ['PATH']", "the environment was read"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads were started"),
        ("import warnings; warnings.warn('old')", "UserWarning: old"),
    ],
)
def test_the_watch_can_fail(tmp_path: Path, text: str, cause: str) -> None:
    """Whatever a module must not do when it is imported is noticed."""
    (tmp_path / "busy.py").write_text(text)
    with pytest.raises(AssertionError, match=cause):
        run_clean(f"ours, names = {str(tmp_path)!r}, ['busy']\n{WATCH}", tmp_path, tmp_path)


@pytest.mark.parametrize(
    "module",
    [
        "tidemill",
        "tidemill.declarations.project",
        "tidemill.kernel.view",
        "tidemill.kernel.fold",
        "tidemill.records",
        "tidemill.streams.topics",
        "tidemill.testing",
    ],
)
def test_declaring_needs_little(module: str, tmp_path: Path) -> None:
    """A user's project and the pure core load without Kafka, Redis, web or model libraries."""
    found = run_clean(f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))", tmp_path)
    assert found.split() == []


@pytest.mark.parametrize("service", SERVICES, ids=name_of)
def test_every_service_has_the_same_files(service: Path) -> None:
    """Who knows one service finds the way in all: entry point, wiring, settings, and a README with what it promises."""
    names = {path.name for path in service.iterdir()}
    assert {"__init__.py", "__main__.py", "app.py", "settings.py", "README.md"} - names == set()
    assert (service / "__main__.py").read_text().count("\n") < 50


@pytest.mark.parametrize("service", SERVICES, ids=name_of)
def test_every_service_can_be_installed_alone(service: Path) -> None:
    """A service has an extra of its own name."""
    assert f"\n{service.name.removeprefix('tidemill_')} = [" in (ROOT / "pyproject.toml").read_text()
