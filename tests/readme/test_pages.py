"""The pages of the documentation: what they name as a command exists and is run by a test, and their code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main
from tests.oracles import aggregation_kinds

from tidemill.cli import app
from tidemill.declarations.project import load_project

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
RUN_BY = {
    "demo": "readme/test_commands.py", "up": "readme/test_commands.py", "prove": "readme/test_commands.py", "down": "readme/test_commands.py",
    "test": "readme/test_commands.py", "check": "readme/test_commands.py", "faults": "faults/test_faults.py", "soak": "faults/test_faults.py",
    "bench": "readme/test_pages.py", "install": "readme/test_commands.py", "containers": "infra/test_compose.py",
}  # fmt: skip
"""Which test runs what a target of the Makefile runs; `bench` takes ten minutes, so only its figures are looked at; `containers` needs podman, so
only its files are."""


def test_every_target_of_make_is_known() -> None:
    """A page names no target that the Makefile does not have, and each that it names is run by a test."""
    named = set(re.findall(r"`make ([a-z]+)", TEXT)) | set(re.findall(r"^make ([a-z]+)", TEXT, re.MULTILINE))
    assert named <= TARGETS
    assert named <= set(RUN_BY)
    assert all((ROOT / "tests" / file).is_file() for file in RUN_BY.values())


def test_every_command_exists_and_is_run_by_a_test() -> None:
    """Every `tidemill COMMAND` of a page is a command, and a test calls it by its name."""
    named = set(re.findall(r"`tidemill (?:--project \S+ )?([a-z][a-z-]+)", TEXT))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 8
    assert named <= COMMANDS
    assert {name for name in COMMANDS if not re.search(rf"[\"']{name}[\"' ]", tests)} == set()


def test_every_aggregate_stands_in_the_table_of_features() -> None:
    """A word that a project may call has its line in docs/features.md."""
    table = "\n".join(re.findall(r"^\| `.*", (ROOT / "docs" / "features.md").read_text(), re.MULTILINE))
    words = {kind.word for kind in aggregation_kinds()}
    missing = [word for word in sorted(words) if not re.search(rf"`{word}[`(]", table)]
    assert missing == [], "add a line to the table of docs/features.md"


def test_the_project_of_the_readme_is_the_example() -> None:
    """The README shows a file that is there and loads."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code == (ROOT / "examples/orders/project.py").read_text()
    assert list(load_project(ROOT / "examples/orders").models) == ["pays_late"]


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda page: page.name)
def test_code_of_a_page_runs(page: Path) -> None:
    """Each block of Python can be copied and run as it stands."""
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, page.name, "exec"), {"__name__": page.stem})  # noqa: S102 - our own pages


def test_the_readme_is_short() -> None:
    """At most 150 lines; everything else has a page of its own."""
    assert (ROOT / "README.md").read_text().count("\n") <= 150


def test_every_page_can_be_reached() -> None:
    """The README links each page."""
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if f"({page.relative_to(ROOT).as_posix()}" not in readme] == []
