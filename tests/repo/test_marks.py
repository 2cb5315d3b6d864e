"""Files that marks leave unread have no test that the marks choose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.marks import unwanted
from tests.times import FOLDER

WHOLE = "import pytest\npytestmark = [pytest.mark.integration, pytest.mark.last]\n\n\ndef test_a(): ..."
PART = "import pytest\n\n\n@pytest.mark.integration\ndef test_a(): ...\n\n\ndef test_b(): ..."
NONE = "def test_a(): ..."


@pytest.mark.parametrize(
    ("expression", "whole", "part", "none"),
    [
        ("", False, False, False),
        ("integration", False, False, True),
        ("not integration", True, False, False),
        ("not integration and not slow", True, False, False),
        ("slow and not integration", True, True, True),
        ("integration and last", False, True, True),
        ("integration and not last and not soak", True, False, True),
        ("last", False, True, True),
        ("soak or last", False, False, False),
        ("not (integration or last)", False, False, False),
        ("filterwarnings", False, False, False),
    ],
)
def test_what_is_not_read(expression: str, whole: bool, part: bool, none: bool) -> None:
    """A file stays unread where the marks can choose none of its tests; an expression that is not understood leaves all to be read."""
    assert [unwanted(text, expression) for text in (WHOLE, PART, NONE)] == [whole, part, none]


def _run(folder: Path, *options: str, more: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(f'import pytest\npytest_plugins = ["tests.marks"]\n{more}')
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {FOLDER.parent}\nmarkers = integration: with servers")
    return subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_file_is_left_unread(tmp_path: Path) -> None:
    """What would fail when it is imported does no harm, and what is chosen is found."""
    (tmp_path / "test_unread.py").write_text("import pytest\npytestmark = pytest.mark.integration\nraise AssertionError")
    (tmp_path / "test_read.py").write_text(NONE)
    done = _run(tmp_path, "-m", "not integration")
    assert done.returncode == 0, done.stdout
    assert " 1 passed" in done.stdout
    assert " 1 error" in _run(tmp_path).stdout


def test_a_mark_from_elsewhere_is_refused(tmp_path: Path) -> None:
    """Else its test would be left out in silence."""
    (tmp_path / "test_marked.py").write_text(NONE)
    done = _run(tmp_path, more="def pytest_itemcollected(item): item.add_marker(pytest.mark.integration)")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is marked integration from elsewhere" in done.stderr


@pytest.mark.slow
def test_a_server_without_the_mark_is_refused(tmp_path: Path) -> None:
    """Else `make check` would start it."""
    (tmp_path / "test_marked.py").write_text("import pytest\n\n\n@pytest.mark.integration\ndef test_a(kafka): ...")
    kafka = "@pytest.fixture\ndef kafka(): ..."
    assert _run(tmp_path, more=kafka).returncode == 0
    (tmp_path / "test_plain.py").write_text("def test_a(kafka): ...")
    done = _run(tmp_path, more=kafka)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "wants kafka: mark it integration" in done.stderr
